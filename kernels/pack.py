"""Packing of weights, for a kernel or for a whole network.

python -m kernels.pack MANIFEST KERNEL IN.npy OUT.bin
python -m kernels.pack MANIFEST MODEL.onnx OUT.weights
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.arrays import load_array
from kernels.elements import numpy_type, to_bytes
from kernels.errors import InputError, KernfitError, UsageError, did_you_mean
from kernels.manifest import Manifest
from kernels.plan import Packing
from kernels.winograd import transformed

LARGEST_MANIFEST = 1 << 28
"""Bytes of a file; a network of 100,000 calls has a manifest of some 100 MB."""


def pack(array: NDArray[Any], packing: Packing) -> NDArray[Any]:
    """The elements of `array` in the packed order, as a vector.

    They are only moved, but for Winograd's transform, which gives the same on every processor.
    """
    permuted = array.transpose(packing.permute)
    if packing.winograd:
        permuted = transformed(permuted, packing.winograd)
    matrices = permuted.reshape(-1, packing.rows, packing.columns)
    parts = [matrix[:, first:last].ravel() for first, last in _panels(packing) for matrix in matrices]
    return np.concatenate(parts)


def unpack(vector: NDArray[Any], packing: Packing, shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse of `pack` for a tensor of `shape`; ValueError for one that was transformed."""
    if packing.winograd:
        raise ValueError("Winograd's transform is not undone")
    matrix = np.empty((packing.rows, packing.columns), dtype=vector.dtype)
    for first, last in _panels(packing):
        panel = vector[first * packing.rows : last * packing.rows]
        matrix[:, first:last] = panel.reshape(packing.rows, last - first)
    permuted = tuple(shape[axis] for axis in packing.permute)
    return matrix.reshape(permuted).transpose(np.argsort(packing.permute))


def _panels(packing: Packing) -> Iterator[tuple[int, int]]:
    """(first, last) column of each panel, the last exclusive; no panel spans two groups."""
    width = packing.columns // packing.groups
    for group in range(packing.groups):
        for first in range(0, width, packing.panel):
            yield group * width + first, group * width + min(first + packing.panel, width)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file; InputError if it is none."""
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise InputError(f"{path}: larger than {LARGEST_MANIFEST >> 20} MiB, so it is no manifest")
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a manifest of kernfit: {error}") from error


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A stream to what becomes the file at `path` once all is written; InputError if that cannot be."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as stream:
            yield stream
        scratch.replace(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such folder") from error
    finally:
        scratch.unlink(missing_ok=True)


def pack_file(described: Manifest, kernel: str, source: Path, target: Path, operand: str = "") -> None:
    """Pack the array in `source` for an operand (default: the only weight) of a kernel."""
    kernels = {entry.name: entry for entry in described.kernels}
    if kernel not in kernels:
        raise UsageError(f"no kernel '{kernel}' in {described.library}{did_you_mean(kernel, kernels)}")
    packed = {o.name: o for o in kernels[kernel].operands if o.packing}
    name = operand or next(iter(packed), "")
    if name not in packed:
        raise UsageError(f"kernel '{kernel}' has no packed operand '{name}'{did_you_mean(name, packed)}")
    wanted = packed[name]
    array = load_array(source)
    if array.shape != wanted.shape:
        raise InputError(
            f"{source}: shape {list(array.shape)}, but {kernel}.{name} is {list(wanted.shape)}"
        )
    if array.dtype != numpy_type(wanted.dtype):
        raise InputError(f"{source}: {array.dtype}, but {kernel}.{name} is {wanted.dtype.value}")
    packed_array = pack(array, wanted.packing) if wanted.packing else array
    with replaced(target) as stream:
        stream.write(to_bytes(packed_array, described.byte_order))


def main() -> int:
    """Parse the command line; returns an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.pack",
        usage="%(prog)s MANIFEST KERNEL IN.npy OUT.bin [--operand NAME]\n"
        "       %(prog)s MANIFEST MODEL.onnx OUT.weights",
        description="Pack a weight for a kernel of a library, or new weights for a whole network.",
    )
    parser.add_argument("manifest", type=Path, help="manifest.json of the library")
    parser.add_argument("kernel", nargs="?", help="the kernel's name")
    parser.add_argument("source", type=Path, help="the unpacked array; or a model of the same shapes")
    parser.add_argument("target", type=Path, help="where the packed bytes go")
    parser.add_argument("--operand", default="", help="which operand, if several are packed")
    given = parser.parse_args()
    try:
        manifest = read_manifest(given.manifest)
        if given.kernel is not None:
            pack_file(manifest, given.kernel, given.source, given.target, given.operand)
        else:
            repack = importlib.import_module("kernels.repack")  # which imports this module
            sha256 = repack.pack_network(manifest, given.source, given.target)
            print(f"{given.target}: {given.target.stat().st_size} bytes, SHA-256 {sha256}")
    except KernfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
