"""report.json: how each kernel fared on each emulated CPU; it tells of one machine."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["pass", "wrong", "illegal", "crash", "timeout", "skipped"]
Fault = Literal["", "kernel", "emulator", "unknown"]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel, or the whole network as `run`, on one emulated CPU.

    `error` and `bound` are of the worst element.
    `insns` counts the instructions that one call of the kernel executes, and is null where
    `insns_reason` says why; `vector_insns` of them worked on vectors. `mnemonics` divides
    them, where a histogram was asked for. `vector_bits` is the length of a vector, read
    from the running processor where the instruction set leaves it open. `guarded` says that it
    was also run with each buffer at a page that must not be touched, behind it and before it, and
    a kernel then with NaN, infinities, subnormal numbers and zeros of both signs in its inputs.
    Where a check failed, `fault` says whose that is: the kernel's if it fails elsewhere too, the
    emulator's if it is right under another one, and unknown where there was no other to ask.
    A row that passes for all that names the known bug of the emulator (`quarantine`).
    """

    kernel: str
    target: str
    cpu: str
    status: Status
    error: float | None = None
    bound: float | None = None
    insns: int | None = None
    insns_reason: str = ""
    vector_insns: int | None = None
    vector_bits: int | None = None
    mnemonics: dict[str, int] | None = None
    reason: str = ""
    emulator: str = ""
    guarded: bool = False
    fault: Fault = ""
    quarantine: str = ""


class Inspection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One promise of the library's files: whether it holds, and what was found."""

    name: str
    passed: bool
    detail: str


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All checks of one library for one target.

    `reference` says who computed what a whole network, the row `run`, was judged against.
    """

    library: str
    target: str
    engine: str
    rows: tuple[Row, ...]
    inspections: tuple[Inspection, ...] = ()
    reference: str = ""

    def broken(self) -> list[Inspection]:
        """Promises that do not hold."""
        return [each for each in self.inspections if not each.passed]

    def failed(self) -> list[Row]:
        """Rows that are neither passed nor skipped."""
        return [row for row in self.rows if row.status not in ("pass", "skipped")]

    def skipped(self) -> list[Row]:
        """Rows whose check did not run."""
        return [row for row in self.rows if row.status == "skipped"]
