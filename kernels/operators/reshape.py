"""Another shape for the same elements in the same order: no work, but for a copy where one is due."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Shape,
    exact,
    from_one_input,
    positive,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.movement import Movement
from kernels.operators.node import Node, axis_of, integers, reshaped, transposed
from kernels.plan import Kernel
from kernels.program import Tensor
from kernels.schedules.copying import emit_copy


class ReshapeAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of y."""

    shape: tuple[int, ...]


class ReshapeEntry(Entry, frozen=True, kw_only=True):
    """A reshaping in a listing, where it is a copy."""

    inputs: OneInput
    attributes: ReshapeAttributes


class Reshape(Movement):
    """The elements of x in their order. In a network it takes no time where y may lie on x."""

    kind = "reshape"
    entry = ReshapeEntry
    attributes = ReshapeAttributes

    def define(self, entry: ReshapeEntry) -> Definition:
        """Scalars, which have no axes, are among the shapes that there may be."""
        x = entry.inputs.x
        if x:
            positive("inputs.x", x)
        return from_one_input(entry.attributes, x, self.result(entry.attributes, [x]))

    def result(self, attributes: ReshapeAttributes, shapes: list[Shape]) -> Shape:
        """The attribute, if it has as many elements."""
        (shape,) = shapes
        if prod(attributes.shape) != prod(shape) or min(attributes.shape, default=1) < 1:
            raise InputError(
                f"attributes.shape = {list(attributes.shape)} has not the elements of {list(shape)}",
                key="attributes.shape",
            )
        return attributes.shape

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy."""
        emit_copy(b, (b.buffers["x"], 0), (b.buffers["y"], 0), [(kernel.output.elements, 1, 1)])

    def reference(self, attributes: ReshapeAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        return exact(arrays["x"].reshape(attributes.shape))


def _reshape(node: Node) -> Tensor:
    x, wanted = node.given(0), integers(node, 1, "shape")
    if wanted is None:
        raise node.refuse("it has no shape")
    shape = [
        x.shape[axis]
        if extent == 0 and not node.attribute("allowzero", 0) and axis < len(x.shape)
        else extent
        for axis, extent in enumerate(wanted)
    ]
    if shape.count(-1) == 1:
        rest = -prod(shape)
        shape[shape.index(-1)] = x.elements // rest if rest else 0
    if prod(shape) != x.elements or (shape and min(shape) < 1):
        raise node.refuse(f"a tensor of shape {list(x.shape)} cannot take the shape {list(wanted)}")
    return reshaped(node, x, tuple(shape))


def _flatten(node: Node) -> Tensor:
    x = node.given(0)
    axis = node.attribute("axis", 1)
    first = len(x.shape) if axis == len(x.shape) else axis_of(node, axis, len(x.shape))
    return reshaped(node, x, (prod(x.shape[:first]), prod(x.shape[first:])))


def _squeeze(node: Node) -> Tensor:
    x, axes = node.given(0), integers(node, 1, "axes")
    dropped = {axis_of(node, axis, len(x.shape)) for axis in axes or ()}
    if axes is None:
        dropped = {axis for axis, extent in enumerate(x.shape) if extent == 1}
    if any(x.shape[axis] != 1 for axis in dropped):
        raise node.refuse(f"axes {sorted(dropped)} of {list(x.shape)} are not all of extent 1")
    return reshaped(node, x, tuple(e for axis, e in enumerate(x.shape) if axis not in dropped))


def _unsqueeze(node: Node) -> Tensor:
    x, axes = node.given(0), integers(node, 1, "axes") or ()
    rank = len(x.shape) + len(axes)
    added = {axis_of(node, axis, rank) for axis in axes}
    if len(added) != len(axes):
        raise node.refuse(f"axes {list(axes)} name an axis twice")
    old = iter(x.shape)
    return reshaped(node, x, tuple(1 if axis in added else next(old) for axis in range(rank)))


def _same(node: Node) -> Tensor:
    return node.given(0)


def _dropout(node: Node) -> tuple[Tensor, Tensor]:
    """Nothing is dropped but in training, by a share of more than 0; and so the mask says."""
    x = node.given(0)
    training = node.value(2) if len(node.inputs) > 2 else np.zeros(1)  # noqa: PLR2004 - third input
    ratio = node.value(1) if len(node.inputs) > 1 else np.array(node.attribute("ratio", 0.5))
    if training is None or (np.any(training) and (ratio is None or np.any(ratio))):
        raise node.refuse("training mode")
    return x, node.constant(np.broadcast_to(np.True_, x.shape))


def _depth_to_space(node: Node) -> Tensor:
    """Channels become pixels; by columns and rows first (DCR), or by channels (CRD, torch's shuffle)."""
    x, size = node.given(0), node.attribute("blocksize")
    if len(x.shape) != 4 or x.shape[1] % size**2:  # noqa: PLR2004 - NCHW
        raise node.refuse(f"blocks of {size} x {size} from a tensor of shape {list(x.shape)}")
    batch, channels, height, width = x.shape
    rest = channels // size**2
    if node.attribute("mode", "DCR") == "DCR":
        parted, permute = (batch, size, size, rest, height, width), (0, 3, 4, 1, 5, 2)
    else:
        parted, permute = (batch, rest, size, size, height, width), (0, 1, 4, 2, 5, 3)
    y = transposed(node, reshaped(node, x, parted), permute)
    return reshaped(node, y, (batch, rest, height * size, width * size))


def _space_to_depth(node: Node) -> Tensor:
    x, size = node.given(0), node.attribute("blocksize")
    if len(x.shape) != 4 or x.shape[2] % size or x.shape[3] % size:  # noqa: PLR2004 - NCHW
        raise node.refuse(f"blocks of {size} x {size} of a tensor of shape {list(x.shape)}")
    batch, channels, height, width = x.shape
    y = reshaped(node, x, (batch, channels, height // size, size, width // size, size))
    by_pixels = node.attribute("mode", "DCR") == "DCR"
    y = transposed(node, y, (0, 3, 5, 1, 2, 4) if by_pixels else (0, 1, 3, 5, 2, 4))
    return reshaped(node, y, (batch, channels * size**2, height // size, width // size))


FAMILIES = (Reshape(),)
ONNX = {
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Identity": _same,
    "Dropout": _dropout,
}
