"""The largest or smallest elements along an axis, in order: ONNX's TopK."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    NUMBERS,
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shapes,
    exact,
    from_one_input,
    positive,
    widened,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.indexing import elements_of
from kernels.operators.node import Node, axis_of, integers, reshaped
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Tensor


class TopAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many elements along which axis, and whether the largest or the smallest ones."""

    k: int
    axis: int
    largest: bool = True


class TopEntry(Entry, frozen=True, kw_only=True):
    """Such a choice in a listing."""

    inputs: OneInput
    attributes: TopAttributes


class Top(Family):
    """y = the places, as int64, of the k largest or smallest elements along an axis, the best first.

    Of equal elements the first comes first, and NaN is behind every number.
    """

    kind = "top_k"
    entry = TopEntry
    attributes = TopAttributes
    fuses = False
    special_inputs = True
    types = NUMBERS

    def define(self, entry: TopEntry) -> Definition:
        """Tensors x and y."""
        shape, attributes = positive("inputs.x", entry.inputs.x), entry.attributes
        axis = attributes.axis
        if not 0 <= axis < len(shape):
            raise InputError(f"attributes.axis = {axis} of {len(shape)} axes", key="attributes.axis")
        if not 1 <= attributes.k <= shape[axis]:
            raise InputError(f"{attributes.k} elements of an axis of {shape[axis]}", key="attributes.k")
        y = (*shape[:axis], attributes.k, *shape[axis + 1 :])
        definition = from_one_input(attributes, shape, y)
        output = msgspec.structs.replace(definition.output, dtype=ElementType.INT64)
        return msgspec.structs.replace(definition, output=output)

    def flops(self, attributes: TopAttributes, shapes: Shapes) -> int:
        """One comparison for each element, at least."""
        return prod(shapes["x"])

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Every other number one of few, so that there are equal ones."""
        array = super().draw(generator, operand)
        flat = array.reshape(-1)[::2]
        with np.errstate(invalid="ignore", over="ignore"):
            flat[:] = np.round(4 * flat) if operand.dtype.floating else flat % 5
        return array

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Each element finds its place among the best so far, and the others move on.

        y holds the best so far. Most elements of a long row are worse than its last one, so
        that the work is near n comparisons, and n k where a row is in the wrong order.
        """
        attributes = msgspec.convert(kernel.attributes, TopAttributes)
        shape, axis, k = kernel.operand("x").shape, attributes.axis, attributes.k
        extent, columns = shape[axis], prod(shape[axis + 1 :])
        x, y = b.buffers["x"], b.buffers["y"]
        with b.loop(0, prod(shape[:axis])) as outer, b.loop(0, columns) as column:
            start, end = outer * extent * columns + column, outer * k * columns + column

            def value(place: Any) -> Any:
                return b.let(b.read(x, start + b.as_index(place) * columns, 1))

            def moved(number: Any, count: Any) -> Any:
                """Put an element before the first that is worse; the place of what is then left over."""
                first = b.let(b.cast(b.index(number), "int64"))
                element = value(first)
                place, held = b.registers([1], "int64"), b.registers([1], b.scalar(element))
                place[0], held[0] = first, element
                with b.loop(0, count) as rank:
                    at = end + rank * columns
                    other, mine = b.let(b.load(y, at, 1)), b.let(place[0])
                    theirs, own = value(other), b.let(held[0])
                    ahead = _ahead(b, own, mine, theirs, other, largest=attributes.largest)
                    b.store(y, at, b.select(ahead, mine, other))
                    place[0], held[0] = b.select(ahead, other, mine), b.select(ahead, theirs, own)
                return b.let(place[0])

            with b.loop(0, k) as number:
                b.store(y, end + number * columns, moved(number, number))
            if k < extent:
                with b.loop(k, extent) as number:
                    last = b.let(b.load(y, end + (k - 1) * columns, 1))
                    mine = b.let(b.cast(b.index(number), "int64"))
                    ahead = _ahead(b, value(mine), mine, value(last), last, largest=attributes.largest)
                    b.when(ahead, lambda: moved(number, k))

    def reference(self, attributes: TopAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's stable sort, by NaN and then by size."""
        x = widened(arrays["x"])
        nan = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
        size = np.where(nan, 0, ~x if x.dtype.kind in "iu" else -x) if attributes.largest else x
        order = np.lexsort((size, nan), axis=attributes.axis)
        return exact(order.take(range(attributes.k), axis=attributes.axis))


def _ahead(b: Any, x: Any, i: Any, y: Any, j: Any, *, largest: bool) -> Any:
    """Whether the element x at place i comes before y at place j: a strict order of all."""
    earlier = i < j
    numbers = b.select(b.equal(x, y), earlier, x > y if largest else x < y)
    if not b.is_real(x):
        return numbers
    return b.select(b.differ(y, y), b.select(b.differ(x, x), earlier, b.equal(x, x)), numbers)


def _top(node: Node) -> tuple[Tensor, Tensor]:
    x, (k, *_) = node.given(0), integers(node, 1, "k") or (0,)
    flat = reshaped(node, x, x.shape or (1,))
    axis = axis_of(node, node.attribute("axis", -1), len(flat.shape))
    if not 1 <= k <= flat.shape[axis]:
        raise node.refuse(f"{k} elements of an axis of {flat.shape[axis]}")
    words = {"k": k, "axis": axis, "largest": bool(node.attribute("largest", 1))}
    places = node.call("top_k", {"x": flat}, words)
    return elements_of(node, flat, places, axis), places


FAMILIES = (Top(),)
ONNX = {"TopK": _top}
