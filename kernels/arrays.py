"""Arrays in NumPy's files, read with distrust.

Nothing is unpickled, and no more memory is taken than the file's own size.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kernels.errors import InputError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
FAULTS = (EOFError, OSError, RuntimeError, SyntaxError, TokenError, TypeError, ValueError)
"""What NumPy and zipfile raise about bytes that are not theirs."""


def load_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file; InputError if it is none."""
    try:
        return _array(path.read_bytes())
    except FAULTS as error:
        raise InputError(f"{path}: not an array that NumPy can read: {error}") from error


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name, which are stored and not compressed; InputError if it is none."""
    try:
        with zipfile.ZipFile(path) as packed:
            return {
                each.filename.removesuffix(".npy"): _array(packed.read(each))
                for each in _stored(packed, path.stat().st_size)
            }
    except (*FAULTS, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: no arrays that NumPy can read: {error}") from error


def _stored(packed: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    members = packed.infolist()
    if any(each.compress_type != zipfile.ZIP_STORED for each in members):
        raise ValueError("its members are compressed")
    if sum(max(each.file_size, each.compress_size) for each in members) > size:
        raise ValueError("its members are larger than the file")
    return members


def _array(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file; ValueError if there is none."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, in_columns, dtype = HEADERS[version](stream)
    rest = data[stream.tell() :]
    if dtype.hasobject or dtype.names or dtype.itemsize == 0:
        raise ValueError(f"elements of {dtype}")
    if min(shape, default=1) < 0 or prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{len(rest)} bytes for {list(shape)} elements of {dtype}")
    if dtype.kind == "U":  # NumPy takes any number for a character, and fails once it is used
        rest.decode("utf-32-be" if dtype.str[0] == ">" else "utf-32-le")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if in_columns else "C")
