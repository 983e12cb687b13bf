"""What a release is made from: a commit, and nothing that is not in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from kernels.errors import InputError, UsageError
from toolchains.limits import limit
from toolchains.process import run

SHOWN_FILES = 5
LAST_EPOCH = 8**11 - 1
"""The latest time that a ustar header can hold (POSIX.1-2024, pax, "ustar Interchange Format")."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, and the time in seconds since 1970 that stands in what is made from it."""

    commit: str
    epoch: int


def source_of(root: Path) -> Source:
    """The commit of the clean checkout at `root`; its time is SOURCE_DATE_EPOCH or the commit's.

    InputError where there is no checkout, or where files differ from the commit, with their
    names; UsageError where SOURCE_DATE_EPOCH is no time
    (https://reproducible-builds.org/specs/source-date-epoch/).
    """
    changed = [line[3:] for line in _git(root, "status", "--porcelain")]
    if changed:
        more = f" and {len(changed) - SHOWN_FILES} more" if len(changed) > SHOWN_FILES else ""
        raise InputError(
            f"a release is made from a commit alone, and these differ from it: "
            f"{', '.join(changed[:SHOWN_FILES])}{more}; commit or remove them"
        )
    commit, time = _git(root, "log", "-1", "--format=%H %ct")[0].split()
    return Source(commit=commit, epoch=parse_epoch(os.environ.get("SOURCE_DATE_EPOCH", time)))


def parse_epoch(word: str) -> int:
    """Seconds since 1970; UsageError where the word is no such number, or too large for an archive."""
    if not re.fullmatch(r"[0-9]{1,11}", word) or int(word) > LAST_EPOCH:
        raise UsageError(f"SOURCE_DATE_EPOCH={word!r}: give whole seconds since 1970, or unset it")
    return int(word)


def _git(root: Path, *words: str) -> list[str]:
    lines: list[str] = []
    finished = run(["git", "-C", str(root), *words], timeout=limit("tool"), on_line=lines.append)
    if finished.status != 0:
        raise InputError(f"a release needs a git checkout: git {words[0]}: {finished.output}")
    return lines
