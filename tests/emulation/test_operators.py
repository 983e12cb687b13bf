"""Every operator on every target, on every emulated CPU: generated, linked, run, judged."""

from __future__ import annotations

import re

import msgspec
import pytest

from kernels.models import catalog, read_model
from tests.emulation.conftest import Edges, built_for
from toolchains.pipeline import Built, Options, build
from toolchains.progress import Progress
from toolchains.quarantine import Bug, known_bugs
from toolchains.target import Target, all_targets

TARGETS = list(all_targets().values())
STACK_BYTES = 2560
"""Spilled registers, the save area and the red zone below; arrays over 1 KB are not on the stack."""


NOT_HERE = re.compile(r"is older than .*, which this target needs|this machine('s processor lacks| is )")
"""Why a check may be left out on some machine: its QEMU is too old, its processor another one.
Docker's tests run with a QEMU that is new enough for every target."""


def test_every_kernel_is_right_on_every_cpu(built: tuple[Target, Built], edges: Edges) -> None:
    target, result = built
    wrong = [
        f"{row.kernel} on {row.cpu}: {row.status}: {row.reason}"
        for row in result.report.rows
        if row.status != "pass" and not (row.status == "skipped" and NOT_HERE.search(row.reason))
    ]
    assert not wrong
    names = {operator.group for operator in edges[target.name].operators}
    for cpu in target.checked_on:
        assert {row.kernel for row in result.report.rows if row.cpu == cpu} == names


def test_every_kernel_was_run_between_pages_that_must_not_be_touched(built: tuple[Target, Built]) -> None:
    unguarded = [row for row in built[1].report.rows if row.status == "pass" and not row.guarded]
    assert not unguarded


@pytest.mark.parametrize("bug", known_bugs(), ids=lambda bug: bug.id)
def test_every_record_of_a_bug_explains_something(bug: Bug, edges: Edges, options: Options) -> None:
    """One that does not is struck out, as far as the emulator here is one that it tells of."""
    rows = [
        row
        for target in TARGETS
        if target.qemu.binary == bug.emulator and target.qemu.cpus
        for row in built_for(target, edges, options).report.rows
    ]
    assert rows
    here = [row for row in rows if bug.of(row.emulator)]
    assert not here or any(row.quarantine == bug.id for row in here)


def test_no_kernel_uses_much_stack(built: tuple[Target, Built]) -> None:
    deep = {k.name: k.stack_bytes for k in built[1].manifest.kernels if k.stack_bytes > STACK_BYTES}
    assert not deep


@pytest.mark.everything
@pytest.mark.parametrize("model", catalog())
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_whole_listing_is_right(model: str, target: Target, options: Options) -> None:
    options = msgspec.structs.replace(options, guards="all")
    result = build(read_model(catalog()[model]), target, options, Progress())
    assert not result.report.failed()
    assert not result.report.skipped()
    guarded = {row.kernel for row in result.report.rows if row.guarded}
    assert guarded == {row.kernel for row in result.report.rows}
