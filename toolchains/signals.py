"""What Ctrl-C and SIGTERM do: kept apart, so that a task has it before all that takes time to import."""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 12.0
"""Python loses what a handler raises where a finalizer or a C library calls it: it is raised again."""

_received = 0


def arm() -> None:
    """From here on either signal ends the process, with its status and no word: nothing has begun."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: os._exit(128 + number))


def expect() -> None:
    """From here on the first of either raises SystemExit, again until `status` has been asked for."""
    signal.signal(signal.SIGALRM, _raise)
    for number in SIGNALS:
        signal.signal(number, _raise)


def status() -> int:
    """That of the signal that came, by which a task ends whatever else was raised; 0 if none did."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    return 128 + _received if _received else 0


def _raise(number: int, _frame: FrameType | None) -> None:
    global _received  # noqa: PLW0603 - a process has one answer to this
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _received = _received or number
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    raise SystemExit(128 + _received)
