"""A kernel that may write over an input is right in one buffer and in two."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from kernels.codegen.lower import lower
from kernels.plan import Kernel, Plan
from tests.emulation.test_operators import NOT_HERE
from tests.targets import FEW_AT_FIRST
from toolchains.checking import Checking
from toolchains.link import LinkRequest
from toolchains.pipeline import Built, Options
from toolchains.progress import Progress
from toolchains.share import Share
from toolchains.target import Target


def chosen(target: Target, result: Built, options: Options) -> tuple[Plan, Path]:
    """Of the small kernels the first of each operator that may be in place, and where they lie."""
    place = options.build / target.name / result.manifest.library
    plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    first: dict[tuple[str, str], Kernel] = {}
    for kernel in plan.kernels:
        if kernel.in_place:
            first.setdefault((kernel.kind, kernel.in_place), kernel)
    return msgspec.structs.replace(plan, kernels=tuple(first.values())), place


@pytest.mark.parametrize("built", FEW_AT_FIRST, indirect=True)
def test_both_ways_are_right(built: tuple[Target, Built], options: Options, tmp_path: Path) -> None:
    target, result = built
    plan, place = chosen(target, result, options)
    assert {("gemm", "residual"), ("conv2d", "residual"), ("relu", "x"), ("add", "b")} <= {
        (kernel.kind, kernel.in_place) for kernel in plan.kernels
    }
    apart = msgspec.structs.replace(
        plan, kernels=tuple(msgspec.structs.replace(kernel, in_place="") for kernel in plan.kernels)
    )
    for name in (f"{plan.library}.h", *(f"{kernel.symbol}.o" for kernel in plan.kernels)):
        shutil.copy(place / name, tmp_path)
    request = tmp_path / "link.json"
    request.write_bytes(
        msgspec.json.encode(LinkRequest(plan=apart, target=target, compiler=options.engine.compiler))
    )
    options.engine.run("toolchains.link", request, target)
    checking = Checking(
        plan=apart,
        target=target,
        engine=options.engine,
        share=Share(options.jobs),
        place=tmp_path,
        build=tmp_path,
    )
    separate = checking.run(Progress(quiet=True)).rows
    names = {kernel.name for kernel in plan.kernels}
    together = [row for row in result.report.rows if row.kernel in names]
    assert len(separate) == len(together) == len(names) * len(target.checked_on)
    for rows in (separate, together):
        wrong = [row for row in rows if row.status != "pass" and not NOT_HERE.search(row.reason)]
        assert not wrong
    assert [(row.kernel, row.insns) for row in separate] == [(row.kernel, row.insns) for row in together]


@pytest.mark.parametrize("built", FEW_AT_FIRST, indirect=True)
def test_llvm_takes_the_pair_for_one_that_may_be_the_same(
    built: tuple[Target, Built], options: Options
) -> None:
    target, result = built
    for kernel in chosen(target, result, options)[0].kernels:
        text = lower(kernel, target).inspect_source("ll")
        start = text.index(f"@{kernel.symbol}(")
        first, *body = text[start : text.index("\n}", start)].splitlines()
        assert "noalias" not in first
        (kind,) = re.findall(r'^(!\d+) = !\{!"tvm-alias"', text, re.MULTILINE)
        (tag,) = re.findall(rf"^(!\d+) = !\{{{kind}, {kind}, ", text, re.MULTILINE)
        for access in ("load", "store"):
            assert [line for line in body if f" {access} " in line and line.endswith(f"!tbaa {tag}")]
