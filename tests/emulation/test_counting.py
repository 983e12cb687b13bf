"""Executed instructions: no kernel may take over 2 % more of them than the committed baseline."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from kernels.models import read_model
from tests.emulation.cases import listing
from tests.emulation.conftest import Edges, built_for, need_counting
from toolchains.pipeline import Built, Options, build
from toolchains.progress import Progress
from toolchains.target import Target, find_target

BASELINE = Path(__file__).parent / "baseline"
LOSS = 1.02


def test_no_kernel_executes_more_than_before(
    built: tuple[Target, Built], edges: Edges, request: pytest.FixtureRequest
) -> None:
    target, result = built
    path = BASELINE / f"{target.name}.json"
    cpu = target.checked_on[0]
    rows = [row for row in result.report.rows if row.cpu == cpu]
    counts = {row.kernel: row.insns for row in rows if row.insns is not None}
    if not counts:
        reasons = {row.insns_reason or row.reason for row in rows}
        assert "" not in reasons, "not counted, without a reason"
        if path.exists():
            pytest.skip(f"{target.name} is not counted here: {', '.join(reasons)}")
        return
    assert len(counts) == len(rows)
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    before = json.loads(path.read_text(encoding="utf-8"))
    assert set(before) == {each.group for each in edges["riscv64"].operators}, "pytest --update-golden"
    assert set(counts) == {each.group for each in edges[target.name].operators}
    lost = {name: (before[name], now) for name, now in counts.items() if now > LOSS * before[name]}
    assert not lost, "executed instructions, before and now"


@pytest.mark.parametrize("name", ["x86_64", "i686"])
def test_counts_do_not_depend_on_where_a_kernel_lies(name: str, options: Options, tmp_path: Path) -> None:
    """Instructions of x86 have any length, and QEMU treats those that cross a page specially."""
    need_counting(find_target(name))
    head, *kernels = listing().split("[[kernel]]")
    kernels = kernels[::6]
    counts = []
    for number, chosen in enumerate((kernels, kernels[7:] + kernels[:3])):
        path = tmp_path / str(number) / "moved.toml"
        path.parent.mkdir()
        text = "[[kernel]]".join([head.replace('"edges"', '"moved"'), *chosen])
        path.write_text(text, encoding="utf-8")
        there = msgspec.structs.replace(options, out=path.parent)
        report = build(read_model(path), find_target(name), there, Progress()).report
        counts.append({row.kernel: row.insns for row in report.rows})
    assert None not in counts[0].values()
    assert counts[1] == {kernel: counts[0][kernel] for kernel in counts[1]}


def test_vectors_run_where_there_are_any(built: tuple[Target, Built]) -> None:
    target, result = built
    rows = [row for row in result.report.rows if row.insns is not None]
    assert not result.report.broken()
    seen = {each.name for each in result.report.inspections}
    if target.cpu.vector_bits:
        assert {f"vector instructions run on {row.cpu}" for row in rows} <= seen
    else:
        assert not any(row.vector_insns for row in rows)
    if target.cpu.scalable:
        assert all(f"vlen={row.vector_bits}" in row.cpu.split(",") for row in rows)


TEN = ("reduce_sum", "log", "relu", "add_row", "sqrt", "floor", "round", "sigmoid", "softmax", "negative")
"""Sum, logarithm and so on: what TVM's own vectorisation makes slower with RISC-V's V than without
(apache/tvm issues 18560 to 18570); `add_row` is its bias_add."""
FEW = 20
"""A kernel of so few instructions works on one or two elements, where no vector can help."""


@pytest.mark.parametrize("operator", TEN)
@pytest.mark.parametrize(
    "variant", ["riscv64-rvv", pytest.param("riscv64-rvv256", marks=pytest.mark.everything)]
)
def test_vectors_of_any_length_take_fewer_instructions_than_none(
    operator: str, variant: str, edges: Edges, options: Options
) -> None:
    counts = {}
    for name in ("riscv64", variant):
        target = find_target(name)
        need_counting(target)
        rows = built_for(target, edges, options).report.rows
        counts[name] = {
            row.kernel: row.insns or 0
            for row in rows
            if row.cpu == target.checked_on[0] and re.fullmatch(rf"{operator}(_\D\w*)?_\d+", row.kernel)
        }
    scalar, vector = counts["riscv64"], counts[variant]
    assert scalar.keys() == vector.keys()
    compared = {kernel: (scalar[kernel], vector[kernel]) for kernel in scalar if scalar[kernel] > FEW}
    assert compared
    assert all(with_v < without for without, with_v in compared.values()), compared
