"""Winograd's algorithm on every target, at sizes that straddle tiles, vectors and blocks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import msgspec
import pytest

from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.program import Program
from kernels.schedules import blocking
from kernels.schedules.tiling import Winograd, product_window
from kernels.tuning import WINOGRAD, Record, RecordFile, signature_of, text
from tests.emulation.test_operators import NOT_HERE, STACK_BYTES
from tests.targets import FEW_AT_FIRST
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import Target

EXTENTS = (3, 4, 5, 7, 8, 9, 13)
CHANNELS = (1, 3, 7, 8, 16, 17)
PADDINGS = ((1, 1, 1, 1), (0, 0, 0, 0), (0, 1, 1, 0), (2, 0, 1, 2))
FUSES = (["bias", "add", "relu"], [], ["bias", "relu"], ["bias", "gelu"])
BLOCKS = ((1, 1), (2, 9), (1, 2), (9, 9), (3, 1))
"""Lines of tiles, and tiles of each: blocks of one size, of two, and of a whole image."""


def listing() -> str:
    """Every extent beside another, with every number of channels and of filters, by both m."""
    parts = ['name = "tiles"\nsource = "sizes around tiles"\n']
    numbers = itertools.count()
    for (height, width), channels, filters in zip(
        itertools.chain(zip(EXTENTS, reversed(EXTENTS), strict=True), zip(EXTENTS, EXTENTS, strict=True)),
        itertools.cycle(CHANNELS),
        itertools.cycle(CHANNELS[1:]),
        strict=False,
    ):
        for m in (2, 4):
            number = next(numbers)
            padding, fuse = PADDINGS[number // 2 % 4], FUSES[(number + number // 8) % 4]
            parts.append(
                f'[[kernel]]\nname = "f{m}_{number}"\nop = "conv2d"\n'
                f"inputs = {{ x = [{1 + number % 3 % 2}, {height}, {width}, {channels}] }}\n"
                f"attributes = {{ filters = {filters}, kernel = [3, 3], padding = {list(padding)} }}\n"
                f"fuse = {json.dumps(fuse)}\n"
            )
    return "\n".join(parts)


def forced(program: Program, target: Target) -> RecordFile:
    """Records that choose m, the blocks of tiles and, now and then, the blocks of channels."""
    records = []
    blocks = itertools.cycle(BLOCKS)
    for number, kernel in enumerate(plan(program, target).kernels):
        m = int(kernel.name[1])
        rows, columns = kernel.output.shape[1:3]
        lines, across = next(blocks)
        lines, across = min(lines, -(-rows // m)), min(across, -(-columns // m))
        window = product_window(lines * across, kernel.operand("x").shape[3])
        product = blocking.choose(window, kernel.output.shape[3], target.cpu)
        changes = {"kc": 2 * max(4, product.ku)} if number % 3 == 0 else {}
        schedule = Winograd(**msgspec.structs.asdict(product) | changes, m=m, lines=lines, across=across)
        records.append(
            Record(
                kernel=signature_of(kernel) + WINOGRAD,
                schedule=msgspec.to_builtins(schedule),
                gain=1.0,
                by="time",
                cpu="",
                date="",
            )
        )
    return RecordFile(target=target.name, record=tuple(records))


@pytest.mark.parametrize("target", FEW_AT_FIRST)
def test_tiles_are_right_on_every_cpu(target: Target, options: Options, tmp_path: Path) -> None:
    (tmp_path / "tiles.toml").write_text(listing(), encoding="utf-8")
    program = read_model(tmp_path / "tiles.toml")
    (tmp_path / f"{target.name}.toml").write_text(text(forced(program, target)), encoding="utf-8")
    chosen = msgspec.structs.replace(options, records=(tmp_path,), winograd=True)
    built = build(program, target, chosen, Progress(quiet=True))
    wrong = [
        f"{row.kernel} on {row.cpu}: {row.status}: {row.reason}"
        for row in built.report.rows
        if row.status != "pass" and not (row.status == "skipped" and NOT_HERE.search(row.reason))
    ]
    assert not wrong
    assert not built.report.broken()
    for kernel in built.manifest.kernels:
        assert kernel.schedule["m"] == int(kernel.name[1])
        assert kernel.stack_bytes <= STACK_BYTES, kernel.name
