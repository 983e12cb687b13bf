"""Where the largest or smallest elements along an axis are."""

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
    exact,
    from_one_input,
    positive,
    widened,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, axis_of, reshaped
from kernels.operators.reduction import normalized
from kernels.plan import Kernel
from kernels.program import ElementType, Tensor
from kernels.schedules import channels


class ArgAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The axis, and whether of equal elements the last one counts; the axis stays with extent 1."""

    axis: int = -1
    last: bool = False


class ArgEntry(Entry, frozen=True, kw_only=True):
    """Such a search in a listing."""

    inputs: OneInput
    attributes: ArgAttributes = ArgAttributes()


class Arg(Family):
    """y = the place, as an int64, of the largest or the smallest element of x along an axis.

    NaN is never larger or smaller, so that it counts only where it comes first.
    """

    entry = ArgEntry
    attributes = ArgAttributes
    fuses = False
    types = NUMBERS

    def __init__(self, kind: str, *, largest: bool) -> None:
        """The search for the largest, or for the smallest."""
        self.kind, self._largest = kind, largest

    def define(self, entry: ArgEntry) -> Definition:
        """Tensors x and y."""
        shape = positive("inputs.x", entry.inputs.x)
        (axis,) = normalized((entry.attributes.axis,), len(shape))
        definition = from_one_input(entry.attributes, shape, (*shape[:axis], 1, *shape[axis + 1 :]))
        output = msgspec.structs.replace(definition.output, dtype=ElementType.INT64)
        return msgspec.structs.replace(definition, output=output)

    def carried(self, attributes: ArgAttributes, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Along the same axis, wherever it lies."""
        return along_its_axis(attributes, rank, axes)

    def flops(self, attributes: ArgAttributes, shapes: Shapes) -> int:
        """One comparison for each element."""
        return prod(shapes["x"])

    def draw(self, generator: np.random.Generator, operand: Any) -> Array:
        """Few different numbers, so that there are equal ones."""
        array = super().draw(generator, operand)
        return (np.round(2 * array) if operand.dtype.floating else array % 5).astype(array.dtype)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Vectors along the axes behind; the best so far and its place in registers."""
        attributes = msgspec.convert(kernel.attributes, ArgAttributes)
        shape = kernel.operand("x").shape
        (axis,) = normalized((attributes.axis,), len(shape))
        extent, columns = shape[axis], prod(shape[axis + 1 :])
        x, y = b.buffers["x"], b.buffers["y"]
        with b.loop(0, prod(shape[:axis])) as outer:

            def body(column: Any, lanes: int) -> None:
                first = b.let(b.read(x, outer * (extent * columns) + column, lanes))
                best, place = b.registers([lanes], b.scalar(first)), b.registers([lanes], "int32")
                best[0], place[0] = first, b.integer(0, lanes)
                with b.loop(1, extent) as number:
                    at = outer * (extent * columns) + number * columns + column
                    value, old = b.let(b.read(x, at, lanes)), b.let(best[0])
                    better = self._better(value, old, last=attributes.last)
                    here = b.splat(b.cast(b.index(number), "int32"), lanes)
                    place[0] = b.select(better, here, b.let(place[0]))
                    best[0] = b.select(better, value, old)
                b.store(y, outer * columns + column, b.cast(b.let(place[0]), "int64"))

            channels.emit_map(b, columns, body)

    def _better(self, value: Any, old: Any, *, last: bool) -> Any:
        if self._largest:
            return value >= old if last else value > old
        return value <= old if last else value < old

    def reference(self, attributes: ArgAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Element by element, for NumPy's takes NaN for the largest and for the smallest."""
        x = np.moveaxis(widened(arrays["x"]), attributes.axis, 0)
        best, place = x[0].copy(), np.zeros(x.shape[1:], np.int64)
        for number in range(1, len(x)):
            better = self._better(x[number], best, last=attributes.last)
            best, place = np.where(better, x[number], best), np.where(better, number, place)
        return exact(np.expand_dims(place, attributes.axis))


def _arg(node: Node) -> Tensor:
    x = node.given(0)
    axis = axis_of(node, node.attribute("axis", 0), len(x.shape))
    words = {"axis": axis, "last": bool(node.attribute("select_last_index", 0))}
    y = node.call(KINDS[node.op], {"x": x}, words)
    if node.attribute("keepdims", 1):
        return y
    return reshaped(node, y, (*x.shape[:axis], *x.shape[axis + 1 :]))


KINDS = {"ArgMax": "arg_max", "ArgMin": "arg_min"}
FAMILIES = (Arg("arg_max", largest=True), Arg("arg_min", largest=False))
ONNX = dict.fromkeys(KINDS, _arg)
