"""NumPy's files of others: what they claim is compared with what they hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from kernels import whole
from kernels.arrays import load_array, load_arrays
from kernels.errors import InputError

CENTRAL = b"PK\x01\x02"
"""Begins a member's entry in the directory of a ZIP file; at 20 of it its packed size, at 24 the other."""


def kept(folder: Path) -> Path:
    path = folder / "kept.npz"
    whole.save(whole.Reference(source="text", inputs={"x": np.ones(3)}, outputs={"y": np.ones(2)}), path)
    return path


@pytest.mark.parametrize("places", [(20,), (24,), (20, 24)])
def test_a_member_that_claims_more_than_the_file_is_refused(
    tmp_path: Path, places: tuple[int, ...]
) -> None:
    path = kept(tmp_path)
    data = bytearray(path.read_bytes())
    for place in places:
        struct.pack_into("<I", data, data.index(CENTRAL) + place, 3 << 30)
    path.write_bytes(data)
    with pytest.raises(InputError, match="larger than the file"):
        load_arrays(path)


@pytest.mark.parametrize("code", [0xD800, 0x110000, 0xFFFFFFFF])
@pytest.mark.parametrize("order", ["<", ">"])
def test_text_of_no_characters_is_refused(tmp_path: Path, code: int, order: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array(["ab\U0010ffff"]).astype(f"{order}U3"))
    assert load_array(path) == ["ab\U0010ffff"]
    path.write_bytes(path.read_bytes()[:-4] + struct.pack(f"{order}I", code))
    with pytest.raises(InputError, match="code point"):
        load_array(path)


def test_records_of_fields_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2, [("a", "<i4"), ("b", "<U2")]))
    with pytest.raises(InputError, match="elements of"):
        load_array(tmp_path / "a.npy")
