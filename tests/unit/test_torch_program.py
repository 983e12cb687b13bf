"""Torch programs become models: by torch where it is, and with a clear word where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from kernels import graph
from kernels.errors import InputError, KernfitError, MissingToolError, UsageError
from kernels.program import Role
from tests import networks
from tests.unit.test_onnx import read
from toolchains.progress import Progress
from toolchains.torch_program import PYTHON, export, find_models

QUIET = Progress(quiet=True)
PROGRAMS = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 4)

    def forward(self, image, shift):
        return self.head(self.conv(image).mean((2, 3)) + shift)


def two():
    return Two(), (torch.zeros(1, 3, 9, 10), torch.zeros(1, 8))


class Nets:
    @staticmethod
    def by_name():
        return Two(), {"shift": torch.zeros(2, 8), "image": torch.zeros(2, 3, 4, 4)}


def alone():
    return nn.Linear(3, 2)


class Unknown(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def branching():
    return Unknown(), torch.zeros(3)
"""
PLAIN = """
number = 3


def broken():
    raise RuntimeError("no weights here")
"""


def need_torch() -> None:
    """A Python that can export; the test is skipped where there is none, which fails in CI."""
    python = os.environ.get(PYTHON) or sys.executable
    both = "import importlib.util as u; assert u.find_spec('torch') and u.find_spec('onnxscript')"
    found = subprocess.run([python, "-c", both], check=False, capture_output=True)
    if found.returncode:
        pytest.skip(f"{python} has no torch with onnxscript; docs/bring-a-model.md says how to bring it")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of torch programs."""
    (tmp_path / "programs.py").write_text(PROGRAMS, encoding="utf-8")
    (tmp_path / "plain.py").write_text(PLAIN, encoding="utf-8")
    (tmp_path / "wrong.py").write_text("import does_not_exist\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_torch_program_is_a_model_with_its_own_names(place: Path) -> None:
    need_torch()
    path = export("programs:two", QUIET, place / "kept")
    assert path.name == "two.onnx"
    network = read(path)
    inputs = [t for t in network.program.tensors if t.role is Role.INPUT]
    assert [(t.name, t.shape) for t in inputs] == [("image", (1, 3, 9, 10)), ("shift", (1, 8))]
    given = networks.inputs_of(network)
    wanted = networks.expected(path, given)
    networks.assert_same(networks.run(graph.optimise(network), given), wanted)
    assert np.ptp(next(iter(wanted.values()))) > 0
    before = path.read_bytes()
    assert str(place).encode() not in before
    assert b"stack_trace" not in before
    again = export("programs:two", QUIET, place / "kept")
    assert (again, again.read_bytes()) == (path, before)
    assert [each.name for each in (place / "kept").iterdir()] == [path.parent.name]


@pytest.mark.usefixtures("place")
def test_inputs_may_be_given_by_name() -> None:
    need_torch()
    (path,) = find_models("programs:Nets.by_name", QUIET)
    try:
        shapes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in onnx.load(path).graph.input
        }
        assert shapes == {"image": [2, 3, 4, 4], "shift": [2, 8]}
        assert path.name == "Nets_by_name.onnx"
    finally:
        shutil.rmtree(path.parent)


WRONG: list[tuple[str, type[KernfitError], str]] = [
    ("nothing.here:two", UsageError, "no module 'nothing' here to import 'nothing.here:two' from"),
    ("plain:tow", UsageError, "module 'plain' has no 'tow'"),
    ("plain:number", InputError, "plain:number is no function"),
    ("programs:alone", InputError, r"programs:alone\(\) gave Linear, and not \(module, example_inputs\)"),
    (
        "plain:broken",
        InputError,
        r"plain:broken\(\) failed: .*plain.py:6: RuntimeError: no weights",
    ),
    (
        "programs:branching",
        InputError,
        r"torch cannot export programs:branching: .*programs.py:\d+: Guard",
    ),
    (
        "wrong:two",
        InputError,
        "importing wrong failed: .*wrong.py:1: ModuleNotFoundError: .*'does_not_exist'",
    ),
]


@pytest.mark.parametrize(("word", "kind", "message"), WRONG, ids=[word for word, *_ in WRONG])
def test_what_is_no_model_is_told_in_one_line(
    word: str, kind: type[KernfitError], message: str, place: Path
) -> None:
    need_torch()
    with pytest.raises(kind, match=message) as caught:
        export(word, QUIET, place / "kept")
    assert "\n" not in str(caught.value)
    assert list((place / "kept").iterdir()) == []


def test_without_torch_it_is_said_how_to_get_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = place / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(bare))
    with pytest.raises(
        MissingToolError, match=r"has no torch; install it there with `uv pip install torch onnxscript"
    ):
        export("programs:two", QUIET, place / "kept")
    monkeypatch.setenv(PYTHON, str(place / "none"))
    with pytest.raises(MissingToolError, match=r"KERNFIT_TORCH_PYTHON=.*none: there is no such program"):
        export("programs:two", QUIET, place / "kept")


def test_other_models_are_found_as_ever(place: Path) -> None:
    assert find_models("resnet50,bert_base", QUIET) == find_models("resnet50, bert_base,resnet50", QUIET)
    (place / "odd:name").write_text("x", encoding="utf-8")
    assert find_models("odd:name", QUIET) == (Path("odd:name"),)
    with pytest.raises(UsageError, match="no model file 'resnet5', nor one in the catalogue; did you mean"):
        find_models("resnet5", QUIET)
