"""The inner loop of a matrix product is, on each target, what the processor was built for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernels.codegen.lower import load, lower, strip
from kernels.graph.planning import plan
from kernels.models import read_model
from toolchains.target import Target, all_targets

SLACK = 1.5
"""For what moves pointers, counts and jumps."""
MEMORY = r"^\s*(st[rp]?q?|vst\d|vst|vse\d+|fsw|std|vmovups\s+%ymm\d+,\s*-?\d*\()"
LISTING = 'name = "t"\nsource = "t"\n\n[[kernel]]\nname = "g"\nop = "gemm"\nm = 196\nn = 256\nk = 512\n'


def inner_loop(assembly: str, multiply_add: str) -> list[str]:
    """The instructions of the loop without inner loops that has the most multiply-adds."""
    best: list[str] = []
    start, label = 0, ""
    lines = [line.split("#")[0].split("//")[0].rstrip() for line in assembly.splitlines()]
    for number, line in enumerate(lines):
        found = re.match(r"(\.LBB\w+):", line)
        if found:
            start, label = number, found[1]
        elif label and re.search(rf"\s{re.escape(label)}$", line):
            body = [each for each in lines[start : number + 1] if re.match(r"\s+[a-z]", each)]
            count = sum(bool(re.search(multiply_add, each)) for each in body)
            if count > sum(bool(re.search(multiply_add, each)) for each in best):
                best = body
    return best


def ideal(target: Target, rows: int, vectors: int) -> int:
    """Instructions for one step of a tile: multiply-adds, loads of the weights, and broadcasts.

    Where the two are not fused, a product also needs a register that holds a copy.
    """
    cpu = target.cpu
    broadcasts = 0 if cpu.lane_operand else rows
    return rows * vectors * (1 if cpu.fma else 3) + vectors + broadcasts


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_the_inner_loop_is_multiply_adds_on_registers(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(LISTING, encoding="utf-8")
    (kernel,) = plan(read_model(path), target).kernels
    multiply_add = target.llvm.multiply_add
    text = strip(lower(kernel, target).inspect_source("ll"), target.llvm.attributes)
    loop = inner_loop(load(text).inspect_source("asm"), multiply_add)
    count = sum(bool(re.search(multiply_add, line)) for line in loop)
    rows = int(kernel.schedule["mr"])
    vectors = -(-int(kernel.schedule["nr"]) // target.cpu.lanes)
    tile = rows * vectors
    assert count > 0, "no inner loop has the multiply-add that this processor is built for"
    assert count % tile == 0 or count >= tile - vectors, (count, tile)
    assert not [line for line in loop if re.match(MEMORY, line)], "accumulators leave the registers"
    assert len(loop) / count <= SLACK * ideal(target, rows, vectors) / tile
