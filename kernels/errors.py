"""The ways in which kernfit fails, each with its exit status.

Code raises; only `tasks.py` prints and exits. Every message is one line that says what
is wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
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
    """Out of disk or memory."""

    status = 8


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a near miss, else the known words, for the end of a message."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""
