"""The inner loop of a matrix product is, on each target, what the processor was built for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernels.codegen.lower import lower
from kernels.graph.planning import plan
from kernels.models import read_model
from toolchains.target import all_targets, find_target

INSTRUCTIONS = {
    # target: (multiply-add, floating-point operations of one, instructions for each operation)
    "aarch64": (r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", 8, 0.165),
    "armv7": (r"vfma\.f32\s+q\d+", 8, 0.30),
    "i686": (r"mulps", 8, 0.60),
    "loongarch64": (r"xvfmadd\.s", 16, 0.12),
    "ppc64le": (r"xvmadd[am]sp", 8, 0.19),
    "riscv64-rvv256": (r"vfmacc\.vf", 64, 0.05),
    "x86_64-avx512": (r"vfmadd\d+ps\s+.*%zmm", 32, 0.07),
    "riscv64": (r"fmadd\.s", 2, 0.80),
    "riscv64-rvv": (r"vfmacc\.vf", 32, 0.10),
    "s390x": (r"vfmasb", 8, 0.21),
    "x86_64": (r"vfmadd\d+ps\s+.*%ymm", 16, 0.13),
}
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


def test_every_target_is_looked_at() -> None:
    assert set(INSTRUCTIONS) == set(all_targets())


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_inner_loop_is_multiply_adds_on_registers(name: str, tmp_path: Path) -> None:
    multiply_add, flops, limit = INSTRUCTIONS[name]
    path = tmp_path / "t.toml"
    path.write_text(LISTING, encoding="utf-8")
    target = find_target(name)
    (kernel,) = plan(read_model(path), target).kernels
    loop = inner_loop(lower(kernel, target).inspect_source("asm"), multiply_add)
    count = sum(bool(re.search(multiply_add, line)) for line in loop)
    vectors = -(-int(kernel.schedule["nr"]) // target.cpu.lanes)
    tile = int(kernel.schedule["mr"]) * vectors
    assert count > 0, "no inner loop has the multiply-add that this processor is built for"
    assert count % tile == 0 or count >= tile - vectors, (count, tile)
    assert not [line for line in loop if re.match(MEMORY, line)], "accumulators leave the registers"
    assert len(loop) / (count * flops) <= limit, f"{len(loop)} instructions for {count} multiply-adds"
