"""Sums and products of all elements up to each along an axis: ONNX's CumSum and CumProd."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.operators.base import (
    NUMBERS,
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    along_its_axis,
    from_one_input,
    positive,
    widened,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, axis_of, reshaped
from kernels.operators.reduction import normalized
from kernels.plan import Kernel
from kernels.program import Tensor
from kernels.schedules import channels


class AccumulationAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The axis; whether an element counts to its own result; whether the last one comes first."""

    axis: int = -1
    exclusive: bool = False
    reverse: bool = False


class AccumulationEntry(Entry, frozen=True, kw_only=True):
    """Such sums or products in a listing."""

    inputs: OneInput
    attributes: AccumulationAttributes = AccumulationAttributes()


class Accumulation(Family):
    """y[i] = x[0] + ... + x[i], or their product, along an axis; before the first: 0, or 1.

    One after the other, so that a result is the same on every target.
    """

    entry = AccumulationEntry
    attributes = AccumulationAttributes
    fuses = False
    types = NUMBERS

    def __init__(self, kind: str, *, product: bool) -> None:
        """Products, or sums."""
        self.kind, self._product = kind, product

    def define(self, entry: AccumulationEntry) -> Definition:
        """Tensors x and y, of one shape."""
        shape = positive("inputs.x", entry.inputs.x)
        normalized((entry.attributes.axis,), len(shape))
        return from_one_input(entry.attributes, shape, shape)

    def carried(
        self, attributes: AccumulationAttributes, rank: int, axes: Mapping[int, int], shape: Shape
    ) -> Any:
        """Along the same axis, wherever it lies."""
        return along_its_axis(attributes, rank, axes)

    def flops(self, attributes: AccumulationAttributes, shapes: Shapes) -> int:
        """One for each element."""
        return prod(shapes["x"])

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Vectors along the axes behind, what is accumulated in registers."""
        attributes = msgspec.convert(kernel.attributes, AccumulationAttributes)
        shape = kernel.operand("x").shape
        (axis,) = normalized((attributes.axis,), len(shape))
        extent, columns = shape[axis], prod(shape[axis + 1 :])
        x, y = b.buffers["x"], b.buffers["y"]
        dtype = kernel.output.dtype
        scalar = "float32" if dtype.floating else dtype.value
        with b.loop(0, prod(shape[:axis])) as outer:

            def body(column: Any, lanes: int) -> None:
                total = b.registers([lanes], scalar)
                total[0] = b.constant(int(self._product), lanes, scalar)
                with b.loop(0, extent) as step:
                    place = extent - 1 - step if attributes.reverse else step
                    at = (outer * extent + place) * columns + column
                    before = b.let(total[0])
                    after = b.let(self._joined(b, before, b.let(b.read(x, at, lanes))))
                    b.write(y, at, before if attributes.exclusive else after)
                    total[0] = after

            channels.emit_map(b, columns, body)

    def _joined(self, b: Any, total: Any, value: Any) -> Any:
        return b.product(total, value) if self._product else b.sum(total, value)

    def reference(self, attributes: AccumulationAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's, in float64 or in the integers' own type; of n numbers each result rounds n times."""
        x, axis = widened(arrays["x"]), attributes.axis
        value, size = self._along(attributes, x), np.abs(x.astype(np.float64))
        magnitude = np.abs(value) if self._product else self._along(attributes, size)
        return Estimate(value=value, magnitude=magnitude, roundings=x.shape[axis])

    def _along(self, attributes: AccumulationAttributes, x: Array) -> Array:
        axis = attributes.axis
        if attributes.reverse:
            x = np.flip(x, axis)
        if attributes.exclusive:
            first = np.full_like(x.take([0], axis), int(self._product))
            x = np.concatenate([first, x.take(range(x.shape[axis] - 1), axis)], axis)
        y = (np.multiply if self._product else np.add).accumulate(x, axis, dtype=x.dtype)
        return np.asarray(np.flip(y, axis) if attributes.reverse else y)


def _accumulated(node: Node) -> Tensor:
    x = node.given(0)
    flat = reshaped(node, x, x.shape or (1,))
    axis = axis_of(node, int(node.known(1, "axis").ravel()[0]), len(flat.shape))
    words = {name: bool(node.attribute(name, 0)) for name in ("exclusive", "reverse")}
    return reshaped(node, node.call(KINDS[node.op], {"x": flat}, {"axis": axis, **words}), x.shape)


KINDS = {"CumSum": "cumulative_sum", "CumProd": "cumulative_product"}
FAMILIES = (
    Accumulation("cumulative_sum", product=False),
    Accumulation("cumulative_product", product=True),
)
ONNX = dict.fromkeys(KINDS, _accumulated)
