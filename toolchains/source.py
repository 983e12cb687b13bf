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
    changed = [line[3:] for line in _git(root, "status", "--porcelain", "--untracked-files=all")]
    if changed:
        more = f" and {len(changed) - SHOWN_FILES} more" if len(changed) > SHOWN_FILES else ""
        raise InputError(
            f"a release is made from a commit alone, and these differ from it: "
            f"{', '.join(changed[:SHOWN_FILES])}{more}; commit or remove them"
        )
    commit, time = _git(root, "log", "-1", "--format=%H %ct")[0].split()
    return Source(commit=commit, epoch=parse_epoch(os.environ.get("SOURCE_DATE_EPOCH", time)))


def within(root: Path, path: Path) -> str:
    """The path of a committed file within the checkout at `root`.

    InputError for any other: the commit could not name it, and nobody could build from it again.
    """
    place = path.resolve()
    if not place.is_relative_to(root.resolve()):
        raise InputError(
            f"{path}: a release is made from a commit alone, and this file is outside the checkout; "
            "commit it in there, or use `invoke build`"
        )
    name = str(place.relative_to(root.resolve()))
    if name not in _git(root, "ls-files", "--", f":(literal){name}"):
        raise InputError(
            f"{path}: a release is made from a commit alone, and this file is not in it; commit it"
        )
    return name


def commit_of(root: Path, name: str) -> str:
    """The commit that a tag, branch or hash names in the checkout at `root`; empty if it names none."""
    words = [
        "git",
        "-C",
        str(root),
        "rev-parse",
        "--quiet",
        "--verify",
        "--end-of-options",
        f"{name}^{{commit}}",
    ]
    finished = run(words, timeout=limit("tool"))
    return finished.output.strip() if finished.status == 0 else ""


def parse_epoch(word: str) -> int:
    """Seconds since 1970; UsageError where the word is no such number, or too large for an archive."""
    if not re.fullmatch(r"[0-9]{1,11}", word) or int(word) > LAST_EPOCH:
        raise UsageError(f"SOURCE_DATE_EPOCH={word!r}: give whole seconds since 1970, or unset it")
    return int(word)


def _git(root: Path, *words: str) -> list[str]:
    lines: list[str] = []
    finished = run(
        ["git", "-C", str(root), "-c", "core.quotePath=false", *words],
        timeout=limit("tool"),
        on_line=lines.append,
    )
    if finished.status != 0:
        raise InputError(f"a release needs a git checkout: git {words[0]}: {finished.output}")
    return lines
