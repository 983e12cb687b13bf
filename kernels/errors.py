"""The ways in which kernfit fails, each with its exit status.

Code raises; only `tasks.py` prints and exits. Every message is one line that says what
is wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LONGEST = 1000
"""Characters of a message about a user's file."""


class KernfitError(Exception):
    """Base of all expected failures; `status` is the exit status of the task."""

    status = 1


class UsageError(KernfitError):
    """Wrong words on the command line: an unknown target, model, engine or option."""

    status = 2


class InputError(KernfitError):
    """A listing, target file or request that cannot be accepted.

    `key` is the key at fault, dots between its parts, from which readers tell the line. A message
    may quote what it was given, which may be any text: it stays one line of printable signs.
    """

    status = 3

    def __init__(self, message: str, *, key: str = "") -> None:
        """`message` says what is wrong, and with what value."""
        text = message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}..."
        super().__init__("".join(sign if sign.isprintable() else "?" for sign in text))
        self.key = key


class MissingToolError(KernfitError):
    """A program that this step needs is not installed."""

    status = 4


class CheckFailedError(KernfitError):
    """A kernel gave a wrong result, trapped, crashed or ran out of time."""

    status = 5


class CheckSkippedError(KernfitError):
    """A check that was required did not run."""

    status = 6


class EngineError(KernfitError):
    """The engine (Docker or local), or a board, could not run a step."""

    status = 7


class ResourceError(KernfitError):
    """The machine lacks what is needed: disk, memory, processes, or the right to write."""

    status = 8


KILLED = "{} was killed, as the kernel does when memory runs out; try --jobs 1"
HINTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, for this user's share of the disk is used up",
    errno.EROFS: "name a folder that can be written, or mount it so",
    errno.EACCES: "change who may use it, or name another",
    errno.EPERM: "change who may use it, or name another",
    errno.EIO: "look at the disk's health (`dmesg`)",
    errno.ENOMEM: "close other programs, or use --jobs 1",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`), or use --jobs 1",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or use --jobs 1",
    errno.ENFILE: "close other programs, for the machine's limit of open files is reached",
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`)",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ENOTDIR: "name a folder",
}
"""What to do when the machine cannot give what is asked of it, by errno(3)."""


def as_known(error: Exception) -> KernfitError | None:
    """The expected failure that an exception is: itself, or what the machine lacks as a ResourceError."""
    known: KernfitError | None = None
    if isinstance(error, KernfitError):
        return error
    if isinstance(error, MemoryError):
        known = ResourceError(f"out of memory: {HINTS[errno.ENOMEM]}")
    elif isinstance(error, OSError) and error.errno in HINTS:
        where = f": {error.filename}" if error.filename else ""
        known = ResourceError(f"{error.strerror}{where}: {HINTS[error.errno]}")
    if known is not None:
        for note in getattr(error, "__notes__", ()):
            known.add_note(note)
    return known


def told(error: KernfitError) -> str:
    """What an error says, and its notes below."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a near miss, else the known words, for the end of a message."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""
