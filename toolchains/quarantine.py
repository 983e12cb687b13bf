"""Known bugs of emulators: what each explains, who tells of it, and when to look at it again."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from kernels.errors import InputError
from toolchains.report import Row, Status

BUGS = Path(__file__).parent / "emulator_bugs.toml"


class Bug(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bug of an emulator, from version `since` on and before `fixed`, if it is.

    It explains rows of that `status` whose reason fits the regular expression `reason`, of
    kernels that have an `instruction` which fits (as Capstone writes it: the mnemonic, a space,
    the operands). From the day it `expires` a test of kernfit's own fails; a build looks at no clock.
    """

    id: str
    emulator: str
    since: tuple[int, int]
    fixed: tuple[int, int] | None = None
    status: Status
    reason: str
    instruction: str
    what: str
    link: str
    expires: dt.date

    def of(self, emulator: str) -> bool:
        """Whether it is a bug of this emulator, as reports call it: its name and its version."""
        name, _, version = emulator.partition(" ")
        if name != self.emulator:
            return False
        number = tuple(int(part) for part in version.split(".")[:2])
        return self.since <= number and (self.fixed is None or number < self.fixed)

    def explains(self, row: Row, texts: Iterable[str]) -> bool:
        """Whether the row is as this bug leaves it, of a kernel of these instructions."""
        if not self.of(row.emulator) or row.status != self.status or not re.search(self.reason, row.reason):
            return False
        return any(re.search(self.instruction, text) for text in texts)


class Bugs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    bug: tuple[Bug, ...] = ()


@cache
def known_bugs(path: Path = BUGS) -> tuple[Bug, ...]:
    """The records of a file; InputError where it does not fit."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Bugs).bug
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path.name}: {error}") from error


def explanation(row: Row, texts: Iterable[str], bugs: Iterable[Bug]) -> Bug | None:
    """The bug that explains a row that is not passed, if there is one."""
    texts = tuple(texts)
    return next((bug for bug in bugs if bug.explains(row, texts)), None)
