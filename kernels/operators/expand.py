"""A tensor repeated along axes of extent 1: ONNX's Expand and Tile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import Array, Entry, Epilogue, Estimate, Shape, exact
from kernels.operators.elementwise import OneInput
from kernels.operators.movement import Movement, strides_of
from kernels.operators.node import Node, integers, reshaped, without_elements
from kernels.plan import Kernel
from kernels.program import Tensor
from kernels.schedules.copying import emit_copy


class ExpandAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of y, of as many axes as x has."""

    shape: tuple[int, ...]


class ExpandEntry(Entry, frozen=True, kw_only=True):
    """A repetition in a listing."""

    inputs: OneInput
    attributes: ExpandAttributes


class Expand(Movement):
    """y[i, j, ...] = x[i, 0, ...] where x has extent 1."""

    kind = "expand"
    entry = ExpandEntry
    attributes = ExpandAttributes

    def result(self, attributes: ExpandAttributes, shapes: list[Shape]) -> Shape:
        """The attribute, if x broadcasts to it."""
        (shape,) = shapes
        fits = len(shape) == len(attributes.shape) and all(
            old in (1, new) and new > 0 for old, new in zip(shape, attributes.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{list(shape)} does not broadcast to attributes.shape = {list(attributes.shape)}",
                key="attributes.shape",
            )
        return attributes.shape

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy, which stands still in x along the axes that are repeated."""
        x, y = kernel.operand("x").shape, kernel.output.shape
        axes = [
            (new, stride if old == new else 0, end)
            for old, new, stride, end in zip(x, y, strides_of(x), strides_of(y), strict=True)
        ]
        emit_copy(b, (b.buffers["x"], 0), (b.buffers["y"], 0), axes)

    def reference(self, attributes: ExpandAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        return exact(np.broadcast_to(arrays["x"], attributes.shape))


def expanded(node: Node, x: Tensor, shape: Shape) -> Tensor:
    """The tensor x broadcast to a shape."""
    flat = reshaped(node, x, (1,) * (len(shape) - len(x.shape)) + x.shape)
    if flat.shape == shape:
        return flat
    return node.call("expand", {"x": flat}, {"shape": shape})


def _expand(node: Node) -> Tensor:
    x, wanted = node.given(0), integers(node, 1, "shape") or ()
    try:
        shape = np.broadcast_shapes(x.shape, wanted)
    except ValueError as error:
        raise node.refuse(f"{list(x.shape)} does not broadcast to {list(wanted)}") from error
    if 0 in shape:
        return without_elements(node, x, shape)
    return expanded(node, x, shape)


def _tile(node: Node) -> Tensor:
    """Each repetition is an axis of its own, before the one that is repeated."""
    x, counts = node.given(0), integers(node, 1, "repeats") or ()
    if len(counts) != len(x.shape) or min(counts, default=1) < 0:
        raise node.refuse(f"repeats {list(counts)} of a tensor of shape {list(x.shape)}")
    if 0 in counts:
        return without_elements(
            node, x, tuple(count * extent for count, extent in zip(counts, x.shape, strict=True))
        )
    pairs = list(zip(counts, x.shape, strict=True))
    flat = reshaped(node, x, tuple(e for count, extent in pairs for e in (1, extent)))
    y = expanded(node, flat, tuple(e for count, extent in pairs for e in (count, extent)))
    return reshaped(node, y, tuple(count * extent for count, extent in pairs))


FAMILIES = (Expand(),)
ONNX = {"Expand": _expand, "Tile": _tile}
