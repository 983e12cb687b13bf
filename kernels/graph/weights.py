"""A network's constants as one block of bytes, each packed as its kernel reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from kernels.elements import numpy_type, to_bytes
from kernels.errors import InputError
from kernels.graph.memory import aligned
from kernels.pack import pack
from kernels.plan import Kernel, Operand, Plan, Weight
from kernels.program import Network
from toolchains.target import Target

Key = tuple[str, str, str]
"""The names of a constant, a kernel and its operand."""
Use = tuple[str, Kernel, Operand]
"""A constant's name, and the kernel and operand that it is given to."""


def lay_weights(
    network: Network, uses: Iterable[Use]
) -> tuple[dict[tuple[str, str, str], int], list[Weight]]:
    """Offsets by (constant, kernel, operand), and the block's entries in the order of first use.

    The same values for operands that are packed alike are stored once, whatever their names.
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
        like = (sums[constant], operand.dtype, operand.packing, operand.shape if operand.packing else ())
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


def packed_weights(plan: Plan, network: Network, target: Target) -> Iterator[bytes]:
    """The block in the target's byte order, piece by piece, as a network's weights may be large."""
    if plan.network is None:
        return
    kernels = {kernel.name: kernel for kernel in plan.kernels}
    end = 0
    for entry in plan.network.weights:
        operand = kernels[entry.kernel].operand(entry.operand)
        array = _values(network.constants, entry.tensor, operand).reshape(operand.shape)
        flat = pack(array, operand.packing) if operand.packing else array
        yield bytes(entry.offset - end)
        yield to_bytes(flat, target.byte_order)
        end = entry.offset + entry.bytes
    yield bytes(plan.network.weights_bytes - end)


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
