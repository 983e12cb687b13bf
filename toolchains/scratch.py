"""Unfinished work: whole files, folders that vanish, one taker at a time, and no remains of the dead.

What is unfinished bears the name of its owner. A process that was killed removes nothing; the
next one finds that the owner is gone, and does it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kernels.errors import EngineError
from toolchains.limits import limit
from toolchains.owner import is_foreign, is_gone, owner

FOREIGN_SECONDS = 2 * 86400.0
"""Of another machine's or container's remains, those that nobody touched for so long are removed."""
POLL_SECONDS = 0.1
REMOVALS = 100
"""A folder in which a thread makes a file meanwhile is removed again, so many times at most."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of linux/fcntl.h and linux/fs.h."""

_numbers = itertools.count()
_folders: set[Path] = set()
_making = threading.Lock()


def _beside(path: Path, name: str) -> Path:
    return path / f".{name}.{owner()}-{next(_numbers)}"


def _sweep(folder: Path, name: str = "") -> None:
    """Remove what dead processes left in a folder of work on `name`, or on anything."""
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        made_for, _, made_by = path.name.rpartition(".")
        if not made_for.startswith(".") or (name and made_for != f".{name}"):
            continue
        maker = made_by.rpartition("-")[0]
        if is_gone(maker) or (is_foreign(maker) and _old(path)):
            _remove(path)


def _old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > FOREIGN_SECONDS
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that takes its name when all of it has been written: all or nothing.

    A `durable` one even if the power fails. Remains of the same file are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent, path.name)
    unfinished = _beside(path.parent, path.name)
    try:
        with unfinished.open("wb") as out:
            yield out
            if durable:
                out.flush()
                os.fsync(out.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file, all of it or nothing."""
    with whole(path, durable=durable) as out:
        out.write(data)


@contextmanager
def scratch(build: Path, name: str) -> Iterator[Path]:
    """A folder below `build` that vanishes, whatever happens; those of the dead go first."""
    _sweep(build / "tmp")
    with _vanishing(build / "tmp", name) as work:
        yield work


def remove_remains(place: Path) -> None:
    """Remove what dead processes left that were to replace a file or a folder."""
    _sweep(place.parent, place.name)


@contextmanager
def replaced(place: Path) -> Iterator[Path]:
    """A folder that takes the place of another when it is whole, and else vanishes."""
    remove_remains(place)
    with _vanishing(place.parent, place.name) as work:
        yield work
        exchange(work, place)


@contextmanager
def _vanishing(folder: Path, name: str) -> Iterator[Path]:
    work = _beside(folder, name)
    with _making:
        work.mkdir(parents=True)
        _folders.add(work)
    try:
        yield work
    finally:
        _remove(work)
        _folders.discard(work)


def remove_all() -> None:
    """Remove the folders that other threads still work in, before this process ends; they make no more."""
    _making.acquire()
    for work in list(_folders):
        for _ in range(REMOVALS):
            _remove(work)
            if not work.exists():
                break


def exchange(work: Path, place: Path) -> None:
    """Put a folder in another's place, so that one of them is there at every moment.

    What was there is then at `work`. File systems that cannot exchange two names (rename(2),
    RENAME_EXCHANGE) have a moment without.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        work.rename(place)
        return
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(work), os.fsencode(place)
    if library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(place))
    old = _beside(work.parent, place.name)
    place.rename(old)
    work.rename(place)
    old.rename(work)


@contextmanager
def alone(build: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the one process that works on `name` below `build`; `waiting` is called if another does now.

    The kernel frees the lock when its holder ends, however it ends. EngineError when the other
    takes longer than any step may.
    """
    path = build / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = limit("lock")
    deadline = time.monotonic() + seconds
    with path.open("ab") as stream:
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                told = True
            if time.monotonic() > deadline:
                raise EngineError(
                    f"another kernfit has been working on {name} for over {seconds:.0f} s; "
                    f"end it (`fuser {path}` names it), or set KERNFIT_LIMITS=lock=SECONDS"
                )
            time.sleep(POLL_SECONDS)
        yield
