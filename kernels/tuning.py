"""Records of tuning: schedules that were measured to be better than the model's.

A build reads them and never searches. They are text files, one for each target, in
`kernels/records/` for the catalogue's shapes and wherever the user keeps them for others.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from kernels.errors import InputError
from kernels.plan import Kernel, Operand, Step, Tuned
from kernels.program import Attribute

RECORDS = Path(__file__).parent / "records"
"""The records that ship with kernfit."""
LARGEST_FILE = 1 << 22
WINOGRAD = " by winograd"
"""Ends the signature of a kernel that computes by Winograd's algorithm."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel's schedule, and the measurement that it won.

    `gain` is its speed over that of the analytical model's schedule: 1.05 is 5 % faster.
    `by` says what was measured: time on the processor `cpu`, or instructions under QEMU.
    """

    kernel: str
    schedule: Tuned
    gain: float
    by: Literal["time", "instructions"]
    cpu: str
    date: str


class RecordFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file of records holds."""

    target: str
    record: tuple[Record, ...] = ()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A record, and the name of the file that it was read from."""

    record: Record
    file: str


def signature_of(kernel: Kernel) -> str:
    """The signature of a planned kernel; its algorithm is a part of it."""
    line = signature(kernel.kind, kernel.attributes, kernel.operands, kernel.epilogue)
    return line + WINOGRAD if kernel.winograd else line


def signature(
    kind: str, attributes: Mapping[str, Attribute], operands: Iterable[Operand], steps: Iterable[Step]
) -> str:
    """A kernel's computation in one line, whatever its name: what a record is found by."""
    shapes = " ".join(f"{o.name}[{o.role}]={'x'.join(map(str, o.shape))}" for o in operands)
    options = " ".join(f"{key}={_word(attributes[key])}" for key in sorted(attributes))
    fused = "".join(f" + {step.kind}" for step in steps)
    return " ".join(part for part in (kind, shapes, options) if part) + fused


def _word(value: Attribute) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def read_records(target: str, folders: Sequence[Path] = ()) -> dict[str, Known]:
    """The records of a target by kernel: ours, and over them those of `folders` in order.

    InputError for a file that is none, or for another target's.
    """
    found: dict[str, Known] = {}
    for folder in (RECORDS, *folders):
        path = folder / f"{target}.toml"
        for record in read_file(path, target).record:
            found[record.kernel] = Known(record=record, file=path.name)
    return found


def read_file(path: Path, target: str) -> RecordFile:
    """The records of one file; none where there is no file."""
    if not path.is_file():
        return RecordFile(target=target)
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path}: larger than {LARGEST_FILE >> 20} MiB, so it is no file of records")
    try:
        read = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), RecordFile)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"{path}: no file of records: {error}") from error
    if read.target != target:
        raise InputError(f"{path}: holds records for '{read.target}', not for {target}")
    return read


def text(records: RecordFile) -> str:
    """The file as TOML, its records in the order of their kernels."""
    parts = [f"target = {_toml(records.target)}\n"]
    for record in sorted(records.record, key=lambda record: record.kernel):
        schedule = ", ".join(f"{key} = {_toml(value)}" for key, value in record.schedule.items())
        parts.append(
            f"\n[[record]]\nkernel = {_toml(record.kernel)}\nschedule = {{ {schedule} }}\n"
            f"gain = {record.gain:.3f}\nby = {_toml(record.by)}\ncpu = {_toml(record.cpu)}\n"
            f"date = {_toml(record.date)}\n"
        )
    return "".join(parts)


def _toml(value: int | str) -> str:
    """An integer or a string; JSON's way to write them is TOML's too."""
    return json.dumps(value)
