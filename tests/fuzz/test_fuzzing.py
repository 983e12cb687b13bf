"""Every reader of files of others takes any bytes: it gives a right result, or one line of error.

In a process of its own, under a limit of memory and of time for each input, with an eye on every file
that is opened. The short form gives each reader some hundred inputs, the same in every run; the long one
gives each of them 100,000 others.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NO_ATHERIS = "atheris is not here: `uv sync` brings it for Python 3.11 to 3.13"
READERS = (
    "model.onnx",
    "inspected.onnx",
    "listing.toml",
    "input.toml",
    "records.toml",
    "manifest.json",
    "request.json",
    "demo.tar.gz",
    "reference.npz",
    "array.npy",
)
FEW, MANY = 300, 100_000
"""Inputs of each reader."""


def counted(folder: Path, words: list[str]) -> dict[str, int]:
    """How many inputs each reader was given; a failure says what the reader made of which."""
    command = [sys.executable, "-m", "tests.fuzz.run", str(folder), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}\nwhat failed is in {folder}"
    return {
        name: int(count) for name, count in re.findall(r"^(\S+): (\d+) inputs", done.stdout, re.MULTILINE)
    }


def test_readers_take_any_bytes(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason=NO_ATHERIS)
    assert counted(tmp_path, [str(FEW), "1"]) == dict.fromkeys(READERS, FEW)


@pytest.mark.everything
@pytest.mark.parametrize("name", READERS)
def test_readers_take_a_hundred_thousand_inputs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason=NO_ATHERIS)
    assert counted(tmp_path, [str(MANY), "0", name]) == {name: MANY}
