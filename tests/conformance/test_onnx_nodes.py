"""ONNX's own tests of its operators, by kernfit itself: all of them here, samples on every target.

What does not pass stands in `expected_failures.toml` with its reason, and nothing else may
fail, nor may anything that stands there pass. `pytest --update-golden` renews the list.
"""

from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path

import onnx
import pytest

from kernels.errors import did_you_mean
from tests.conformance.running import run_all
from tests.conformance.selection import STATIC, Case, cases, collected
from toolchains.emulate import find_machine
from toolchains.native import own_target
from toolchains.target import NATIVE, Target, all_targets, find_target

LIST = Path(__file__).parent / "expected_failures.toml"
SAMPLE = 4
"""Tests for each target in a run that is not nightly."""
LEAST = 0.9
"""The share that must pass."""


def listed() -> dict[str, str]:
    """The reason for each test that is not to pass."""
    return {
        name: group["reason"]
        for group in tomllib.loads(LIST.read_text(encoding="utf-8")).get("group", ())
        for name in group["tests"]
    }


def passing() -> list[Case]:
    known = listed()
    return [case for name, case in cases().items() if name not in known]


def test_the_selection_is_what_it_says() -> None:
    assert len(collected()) == 1884
    assert len(cases()) == 1488
    for case in cases().values():
        assert [value.name for value in case.model.graph.input] == list(case.inputs)
    for op, numbers in STATIC.items():
        schema = onnx.defs.get_schema(op)
        assert max(numbers) < len(schema.inputs), op


def test_the_list_names_tests_that_there_are() -> None:
    for name in listed():
        assert name in cases(), f"{name}{did_you_mean(name, cases())}"


def test_every_test_passes_or_is_listed(request: pytest.FixtureRequest) -> None:
    found = run_all(list(cases().values()), find_target(own_target()), NATIVE)
    if request.config.getoption("--update-golden"):
        LIST.write_text(as_list(found), encoding="utf-8")
    known = listed()
    wrong = [f"{name}: {reason}" for name, reason in found.items() if reason and name not in known]
    right = [f"{name} passes" for name, reason in found.items() if not reason and name in known]
    passed = sum(not reason for reason in found.values())
    print(f"\n{passed} of {len(found)} tests of ONNX pass: {100 * passed / len(found):.1f} %")
    assert not wrong + right, "\n".join([*wrong, *right])
    assert passed >= LEAST * len(found)


def as_list(found: dict[str, str]) -> str:
    """The file: groups of tests with the same reason, names and numbers apart."""
    groups: dict[str, list[str]] = {}
    for name, reason in sorted(found.items()):
        if reason:
            groups.setdefault(general(reason), []).append(name)
    lines = ["# Tests of ONNX that do not pass, and why; `pytest --update-golden` renews this file."]
    for reason, names in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        lines += ["", "[[group]]", f"reason = {quoted(reason)}", "tests = ["]
        lines += [*(f"    {quoted(name)}," for name in names), "]"]
    return "\n".join(lines) + "\n"


def general(reason: str) -> str:
    """A reason without what differs from test to test."""
    reason = re.sub(r"^n\d+\.onnx: ", "", reason)
    reason = re.sub(r"(another result, [^:]*): .*", r"\1", reason)
    reason = re.sub(r"^node '[^']*' \((\w+)\): ", r"\1: ", reason)
    return re.sub(r" \('[^']*'\)|'[^']*' ", "", reason)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_a_sample_passes_under_emulation(target: Target) -> None:
    sample = random.Random(target.name).sample(passing(), SAMPLE)  # noqa: S311 - seeded, so the same each time
    run_on(target, sample)


@pytest.mark.everything
@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_all_pass_under_emulation_each_on_one_target(target: Target) -> None:
    """Every operator's tests come to every target, in turn; no test is left out."""
    targets = sorted(all_targets())
    share = passing()[targets.index(target.name) :: len(targets)]
    run_on(target, share)


def run_on(target: Target, chosen: list[Case]) -> None:
    """All pass; or are compiled and linked at least, where nothing here runs the target's code."""
    cpu = target.checked_on[0]
    reason = find_machine(target, cpu).reason
    assert not reason or "older than" in reason or "processor lacks" in reason
    assert run_all(chosen, target, cpu) == {case.name: reason for case in chosen}
