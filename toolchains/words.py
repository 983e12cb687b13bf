"""What people type on a command line, as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kernels.errors import UsageError

UNITS = {"": 0, "K": 10, "M": 20, "G": 30}
"""Letters behind a number of bytes, and the powers of two that they stand for."""


def one_of(flag: str, word: str, *known: str) -> None:
    """UsageError unless the word is one of those."""
    if word not in known:
        raise UsageError(f"{flag} {word}: say {', '.join(known[:-1])} or {known[-1]}")


WORDS = {
    "check": ("all", "sample"),
    "guard": ("all", "small"),
    "weights": ("embed", "file", "symbol"),
}
"""What may be said of how a library is built or checked, by the flag."""


def require_known(**given: str) -> None:
    """UsageError unless each flag's word is one of WORDS."""
    for flag, word in given.items():
        one_of(f"--{flag}", word, *WORDS[flag])


def parse_bytes(flag: str, word: str) -> int:
    """A number of bytes such as 262144, 256K or 1M; UsageError where it is none."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", word.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(f"{flag} {word}: give a number of bytes, such as 65536, 256K or 1M")
    return int(found[1]) << UNITS[found[2].upper()]


def parse_jobs(word: str) -> int:
    """How many steps may run at once; UsageError where the word is no positive number."""
    if not re.fullmatch(r"[0-9]{1,4}", word) or int(word) < 1:
        raise UsageError(f"--jobs {word}: give a positive number")
    return int(word)


def parse_seconds(flag: str, word: str) -> float:
    """A time in seconds; UsageError where the word is no positive decimal number."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", word) or float(word) <= 0:
        raise UsageError(f"{flag} {word}: give seconds, such as 2 or 0.5")
    return float(word)


def parse_dims(words: Iterable[str]) -> dict[str, int]:
    """Sizes of dimensions and values of inputs, by words such as batch=1; UsageError where one has none."""
    dims = {}
    for word in words:
        name, _, size = word.rpartition("=")
        if not name or not re.fullmatch(r"-?[0-9]{1,18}", size):
            raise UsageError(f"--dim {word}: give a dimension's name and size, such as batch=1")
        dims[name] = int(size)
    return dims
