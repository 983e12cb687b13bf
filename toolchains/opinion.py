"""Whose fault a failed check is, the kernel's or the emulator's: another one is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import msgspec

from toolchains.quarantine import Bug, explanation, known_bugs
from toolchains.report import Row


class Ask(Protocol):
    """Runs kernels once more, under another emulator or without guard pages; rows by kernel."""

    def __call__(self, kernels: Collection[str], *, other: bool, guards: bool) -> Mapping[str, Row]:
        """A kernel may be missing."""


def failed(row: Row) -> bool:
    """Whether its check ran, and did not pass."""
    return row.status not in ("pass", "skipped")


def settle(
    rows: Mapping[str, Row],
    ask: Ask,
    instructions: Mapping[str, Iterable[str]],
    *,
    bugs: Collection[Bug] | None = None,
) -> dict[str, Row]:
    """Failed rows of one processor, by kernel, each with whose fault it is.

    What a known bug of the emulator explains passes, unless the kernel fails elsewhere too: with
    guard pages if it passes with them elsewhere, else if it passes here without them. An emulator
    with the same bug has no opinion. `instructions` are the kernels' own, in Capstone's words.
    """
    bugs = known_bugs() if bugs is None else bugs
    bug_of = {name: explanation(row, instructions[name], bugs) for name, row in rows.items()}
    second = {
        name: row
        for name, row in ask(rows, other=True, guards=True).items()
        if not ((bug := bug_of[name]) and bug.explains(row, instructions[name]))
    }
    blamed = {name: blame(row, second.get(name)) for name, row in rows.items()}
    explained = {name: bug for name, bug in bug_of.items() if bug and blamed[name].fault != "kernel"}
    if explained:
        plain = ask(explained, other=False, guards=False)
        for name, bug in explained.items():
            here, fault = plain.get(name), blamed[name].fault
            if here is not None and here.status == "pass":
                blamed[name] = msgspec.structs.replace(
                    here, fault=fault, quarantine=bug.id, guarded=fault == "emulator"
                )
    return blamed


def blame(row: Row, second: Row | None) -> Row:
    """A failed row, and what the other emulator said."""
    if second is None or second.status == "skipped":
        return msgspec.structs.replace(row, fault="unknown")
    if second.status == "pass":
        reason = f"{row.reason}; it is right under {second.emulator}"
        return msgspec.structs.replace(row, fault="emulator", reason=reason)
    reason = f"{row.reason}; under {second.emulator} too: {second.status}"
    return msgspec.structs.replace(row, fault="kernel", reason=reason)


def compare(rows: Iterable[Row]) -> list[Row]:
    """Rows of all processors: where no other emulator was there, those of the same one tell.

    What fails with every length of vectors is the kernel's fault.
    """
    rows = list(rows)
    return [_compared(row, rows) if row.fault == "unknown" and failed(row) else row for row in rows]


def _compared(row: Row, rows: Iterable[Row]) -> Row:
    others = [
        each
        for each in rows
        if each.kernel == row.kernel and each.cpu != row.cpu and each.status != "skipped"
    ]
    if not others:
        return row
    right = [each.cpu for each in others if not failed(each)]
    told = f"right on {', '.join(right)}" if right else "wrong on every other processor"
    reason = f"{row.reason}; it is {told}"
    return msgspec.structs.replace(row, fault="unknown" if right else "kernel", reason=reason)
