"""NaN, infinities, subnormal numbers and zeros: every kernel is judged with them among its inputs."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kernels import check
from kernels.elements import numpy_type, to_bytes
from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.plan import Kernel
from kernels.program import ElementType
from tests.emulation.cases import listing
from tests.unit.test_listing import conv, write
from toolchains.target import Target, find_target

TARGETS = [find_target(name) for name in ("x86_64", "armv7")]
"""One that keeps subnormal numbers, and one that flushes them."""

FINITE = {"grid_sample"}
"""Tried with finite numbers alone: docs/reliability.md says why."""


def edges(folder: Path, target: Target) -> tuple[Kernel, ...]:
    """The small kernels that every target runs."""
    path = folder / "edges.toml"
    path.write_text(listing(), encoding="utf-8")
    return plan(read_model(path), target).kernels


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_operand_of_reals_holds_special_numbers(tmp_path: Path, target: Target) -> None:
    for kernel in edges(tmp_path, target):
        if kernel.kind in FINITE:
            continue
        arrays = check.make_inputs(kernel, target, special=True)
        for operand in kernel.by_role("input") + kernel.by_role("constant"):
            if not operand.dtype.floating or operand.elements < 24:
                continue
            x = arrays[operand.name]
            with np.errstate(invalid="ignore"):
                wide = x.astype(np.float64)
            tiny = (wide != 0) & (np.abs(wide) < float(ml_dtypes.finfo(x.dtype).smallest_normal))
            flushed = target.cpu.flushes_subnormals and operand.dtype is not ElementType.FLOAT16
            where = f"{kernel.name}: {operand.name}"
            assert np.isnan(wide).any(), where
            assert np.isinf(wide).any(), where
            assert (np.signbit(wide) & (wide == 0)).any(), where
            assert tiny.any() != flushed, where


def test_the_judge_wants_the_special_results_that_are_due_and_no_others(tmp_path: Path) -> None:
    target = TARGETS[0]
    refused = 0
    for kernel in edges(tmp_path, target):
        arrays = check.make_inputs(kernel, target, special=True)
        with np.errstate(all="ignore"):
            dtype = kernel.output.dtype
            due = check.reference(kernel, arrays).value
            right = due.astype(numpy_type(dtype))
        assert check.judge(kernel, arrays, to_bytes(right, "<"), target).passed, kernel.name
        if not dtype.floating:
            continue
        for here, other in ((np.isnan(due), 0.0), (np.isinf(due), np.nan), (np.isfinite(due), np.nan)):
            if here.any():
                wrong = right.copy()
                wrong[tuple(np.argwhere(here)[-1])] = other
                assert not check.judge(kernel, arrays, to_bytes(wrong, "<"), target).passed, kernel.name
                refused += 1
    assert refused > 500


def test_winograds_algorithm_gets_finite_numbers(tmp_path: Path) -> None:
    program = read_model(write(tmp_path, conv("filters = 64, kernel = [3, 3]", "[1, 32, 32, 64]")))
    (kernel,) = plan(program, TARGETS[0], winograd=True).kernels
    assert kernel.winograd
    arrays = check.make_inputs(kernel, TARGETS[0], special=True)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert (np.signbit(arrays["x"]) & (arrays["x"] == 0)).any()
