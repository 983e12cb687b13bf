"""Every reader of files of others takes any bytes: it gives a right result, or one line of error.

In a process of its own, under a limit of memory and of time for each input, with an eye on every file
that is opened. `invoke test --all --only fuzz` runs both forms: the short one has half a minute for all
readers, the long one gives each of them 100,000 inputs at least.
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
MANY = 100_000
SHORT, LONG = 3, 360
"""Seconds for each reader."""


def counted(folder: Path, words: list[str]) -> dict[str, int]:
    """How many inputs each reader was given; a failure says what the reader made of which."""
    command = [sys.executable, "-m", "tests.fuzz.run", str(folder), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}\nwhat failed is in {folder}"
    return {
        name: int(count) for name, count in re.findall(r"^(\S+): (\d+) inputs", done.stdout, re.MULTILINE)
    }


@pytest.mark.everything
def test_readers_take_any_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason=NO_ATHERIS)
    found = counted(tmp_path, [str(SHORT), "1"])
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {count}" for name, count in found.items()), end=" ")
    assert tuple(found) == READERS
    assert min(found.values()) > 0


@pytest.mark.everything
@pytest.mark.parametrize("name", READERS)
def test_readers_take_a_hundred_thousand_inputs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("atheris", reason=NO_ATHERIS)
    total = 0
    while total < MANY:
        total += counted(tmp_path, [str(LONG), "0", name])[name]
        with capsys.disabled():
            print(f"\n{name}: {total}", end=" ", flush=True)
