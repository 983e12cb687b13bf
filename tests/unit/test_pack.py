"""Packing moves elements, and loses none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.graph.planning import plan
from kernels.manifest import Measured, manifest_of
from kernels.models import read_model
from kernels.pack import pack, unpack
from kernels.plan import Packing
from tests.unit.test_listing import write
from toolchains.target import find_target


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 16))
def test_every_element_lies_where_the_definition_says(rows: int, columns: int, panel: int) -> None:
    panel = min(panel, columns)
    packing = Packing(permute=(1, 0), rows=rows, columns=columns, panel=panel, groups=1)
    array = np.arange(rows * columns, dtype=np.float32).reshape(columns, rows)
    packed = pack(array, packing)
    for row in range(rows):
        for column in range(columns):
            start = column // panel * panel
            width = min(panel, columns - start)
            assert packed[start * rows + row * width + column - start] == array[column, row]
    assert np.array_equal(unpack(packed, packing, array.shape), array)


def test_the_command_packs_in_the_targets_byte_order(tmp_path: Path) -> None:
    listing = write(tmp_path, '[[kernel]]\nname = "fc"\nop = "gemm"\nm = 2\nn = 5\nk = 3\n')
    target = find_target("s390x")
    planned = plan(read_model(listing), target)
    measured = {"t_fc": Measured(code_bytes=1, constant_bytes=0, stack_bytes=0)}
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(msgspec.json.encode(manifest_of(planned, target, measured, {})))
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.save(tmp_path / "w.npy", weights)
    command = [sys.executable, "-m", "kernels.pack", str(manifest), "fc", str(tmp_path / "w.npy")]
    subprocess.run([*command, str(tmp_path / "w.bin")], check=True)
    packing = planned.kernels[0].operand("b").packing
    assert packing is not None
    assert (tmp_path / "w.bin").read_bytes() == pack(weights, packing).astype(">f4").tobytes()


@pytest.mark.parametrize(
    ("array", "kernel", "message", "status"),
    [
        (np.zeros((3, 4), np.float32), "fc", "shape [3, 4], but fc.b is [3, 5]", 3),
        (np.zeros((3, 5)), "fc", "float64, but fc.b is float32", 3),
        (np.zeros((3, 5), np.float32), "conv", "no kernel 'conv' in", 2),
    ],
)
def test_the_command_refuses_what_does_not_fit(
    tmp_path: Path, array: np.ndarray, kernel: str, message: str, status: int
) -> None:
    listing = write(tmp_path, '[[kernel]]\nname = "fc"\nop = "gemm"\nm = 2\nn = 5\nk = 3\n')
    target = find_target("s390x")
    planned = plan(read_model(listing), target)
    measured = {"t_fc": Measured(code_bytes=1, constant_bytes=0, stack_bytes=0)}
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(msgspec.json.encode(manifest_of(planned, target, measured, {})))
    np.save(tmp_path / "w.npy", array)
    command = [sys.executable, "-m", "kernels.pack", str(manifest), kernel, str(tmp_path / "w.npy")]
    done = subprocess.run([*command, str(tmp_path / "w.bin")], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w.bin").exists()
