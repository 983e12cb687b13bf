"""A network's constants as one block of bytes, each packed as its kernel reads it.

Weights that are not in the library can be exchanged for others of the same layout. So these
end with the SHA-256 of their layout, at the next multiple of 64 bytes, which the library's run
looks at: other weights may have other values, but not another meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from kernels.elements import Order, numpy_type, to_bytes
from kernels.errors import InputError
from kernels.graph.memory import aligned
from kernels.manifest import Manifest, ManifestKernel
from kernels.pack import pack
from kernels.plan import Kernel, Operand, Plan, Weight
from kernels.program import Network, Program

Key = tuple[str, str, str]
"""The names of a constant, a kernel and its operand."""
Use = tuple[str, Kernel, Operand]
"""A constant's name, and the kernel and operand that it is given to."""
LAYOUT_BYTES = hashlib.sha256().digest_size


def lay_weights(
    network: Network, uses: Iterable[Use], *, by_value: bool
) -> tuple[dict[tuple[str, str, str], int], list[Weight]]:
    """Offsets by (constant, kernel, operand), and the block's entries in the order of first use.

    A constant for operands that are packed alike is stored once; so are, `by_value`, different
    constants of the same values, which then can only change together.
    InputError where a constant has not the type or size that its tensor states.
    """
    offsets: dict[Key, int] = {}
    entries: list[Weight] = []
    sums: dict[str, str] = {}
    stored: dict[Any, int] = {}
    end = 0
    for constant, kernel, operand in uses:
        use = (constant, kernel.name, operand.name)
        if use in offsets:
            continue
        if constant not in sums:
            sums[constant] = _sum(_values(network.constants, constant, operand))
        what = sums[constant] if by_value else constant
        like = (what, operand.dtype, operand.packing, operand.shape if operand.packing else ())
        if like not in stored:
            stored[like] = end
            entries.append(
                Weight(
                    tensor=constant,
                    kernel=kernel.name,
                    operand=operand.name,
                    offset=end,
                    bytes=operand.bytes,
                    sha256=sums[constant],
                )
            )
            end = aligned(end + operand.bytes)
        offsets[use] = stored[like]
    return offsets, entries


def with_layout(size: int) -> int:
    """The size of a block of so many bytes with the hash of its layout behind it."""
    return aligned(size) + LAYOUT_BYTES


def layout_of(
    program: Program, kernels: Iterable[Kernel | ManifestKernel], weights: Iterable[Weight], endianness: str
) -> str:
    """SHA-256 of all that decides where which constant's values lie, and what is made of them.

    That is the program as kernels compute it, but for its name and source, and each constant's
    place, packing and byte order; and nothing of the values.
    """
    operands = _operands(kernels)
    places = [
        (each.tensor, each.offset, each.bytes, operands[each.kernel, each.operand]) for each in weights
    ]
    layout = (program.tensors, program.operators, places, endianness)
    return hashlib.sha256(msgspec.json.encode(layout, order="deterministic")).hexdigest()


def _operands(kernels: Iterable[Kernel | ManifestKernel]) -> dict[tuple[str, str], Operand]:
    return {(kernel.name, operand.name): operand for kernel in kernels for operand in kernel.operands}


def packed_weights(library: Plan | Manifest, network: Network, order: Order) -> Iterator[bytes]:
    """The block in a byte order, piece by piece, as a network's weights may be large."""
    if library.network is None:
        return
    operands = _operands(library.kernels)
    end = 0
    for entry in library.network.weights:
        operand = operands[entry.kernel, entry.operand]
        array = _values(network.constants, entry.tensor, operand).reshape(operand.shape)
        flat = pack(array, operand.packing) if operand.packing else array
        yield bytes(entry.offset - end)
        yield to_bytes(flat, order)
        end = entry.offset + entry.bytes
    layout = bytes.fromhex(library.network.weights_layout)
    yield bytes(library.network.weights_bytes - len(layout) - end)
    yield layout


def _values(constants: Mapping[str, NDArray[Any]], name: str, operand: Operand) -> NDArray[Any]:
    array = constants[name]
    if array.dtype != numpy_type(operand.dtype) or array.size != operand.elements:
        raise InputError(
            f"constant '{name}' has {array.size} elements of {array.dtype}, but {operand.elements} of "
            f"{operand.dtype.value} are due"
        )
    return array


def _sum(array: NDArray[Any]) -> str:
    return hashlib.sha256(to_bytes(array, "<")).hexdigest()
