"""Ctrl-C and SIGTERM: a task ends at once, and leaves no child, no container and no unfinished folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

from toolchains.process import end_all, start_no_more
from toolchains.scratch import remove_all


def leave(status: int, word: str) -> NoReturn:
    """End this process with a last word, not waiting for threads, whose computing nothing interrupts."""
    start_no_more()
    end_all()
    remove_all()
    sys.stderr.write(f"{word}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


@contextmanager
def threads(number: int, stop: Callable[[], None]) -> Iterator[ThreadPoolExecutor]:
    """So many threads; after an error `stop` ends what they do, after an interruption nobody waits."""
    pool = ThreadPoolExecutor(max(1, number))
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        stop()
        pool.shutdown(wait=isinstance(error, Exception))
        raise
    pool.shutdown()
