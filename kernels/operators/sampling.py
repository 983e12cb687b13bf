"""Elements along an axis by a table: chosen one by one, or several mixed.

The table is known when the library is built, so that every rule by which places are found is
the reader's: resizing in all its modes, borders that reflect, steps backwards.
"""

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
    Family,
    Shape,
    Shapes,
    along_its_axis,
    exact,
    positive,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.movement import Movement
from kernels.operators.node import Node
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Role, Tensor
from kernels.schedules.channels import emit_map
from kernels.schedules.copying import emit_copy


class SamplingAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Along `axis` y has `extent` elements, each made of `taps` elements of x."""

    axis: int
    extent: int
    taps: int = 1


class SamplingEntry(Entry, frozen=True, kw_only=True):
    """A choice of elements in a listing."""

    inputs: OneInput
    attributes: SamplingAttributes


class Sampling(Family):
    """What both share: the table `places`, [extent, taps], int32; what is beyond an end means the end."""

    entry = SamplingEntry
    attributes = SamplingAttributes
    weights = frozenset(["places", "shares"])
    fuses = False

    def define(self, entry: SamplingEntry) -> Definition:
        """The input x, the table, and y."""
        x, attributes = positive("inputs.x", entry.inputs.x), entry.attributes
        positive("attributes.extent", (attributes.extent, attributes.taps))
        if not 0 <= attributes.axis < len(x):
            raise InputError(f"attributes.axis = {attributes.axis} of {len(x)} axes", key="attributes.axis")
        table = (attributes.extent, attributes.taps)
        shape = (*x[: attributes.axis], attributes.extent, *x[attributes.axis + 1 :])
        return Definition(
            attributes=msgspec.to_builtins(attributes),
            operands=(
                Tensor(name="x", shape=x, role=Role.INPUT),
                Tensor(name="places", shape=table, role=Role.CONSTANT, dtype=ElementType.INT32),
                *self.others(table),
            ),
            output=Tensor(name="y", shape=shape, role=Role.OUTPUT),
        )

    def others(self, table: Shape) -> tuple[Tensor, ...]:
        """Further operands of the table's shape."""
        return ()

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Places within small tensors, and some beyond."""
        if operand.name == "places":
            return generator.integers(-2, 9, operand.shape).astype(operand.dtype.value)
        return super().draw(generator, operand)

    def carried(
        self, attributes: SamplingAttributes, rank: int, axes: Mapping[int, int], shape: Shape
    ) -> Any:
        """Along the same axis, wherever it lies."""
        return along_its_axis(attributes, rank, axes)


class Take(Sampling, Movement):
    """y[..., i, ...] = x[..., places[i], ...]."""

    kind = "take"

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy of all that lies behind the axis for each place."""
        before, size, after = _around(kernel)
        extent = kernel.operand("places").elements
        with b.loop(0, before) as row, b.loop(0, extent) as number:
            place = _place(b, number, size)
            source = (b.buffers["x"], (row * size + place) * after)
            emit_copy(b, source, (b.buffers["y"], (row * extent + number) * after), [(after, 1, 1)])

    def reference(self, attributes: SamplingAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's, with bounded places."""
        places = np.clip(arrays["places"].ravel(), 0, arrays["x"].shape[attributes.axis] - 1)
        return exact(arrays["x"].take(places, axis=attributes.axis))


class Resample(Sampling):
    """y[..., i, ...] = sum over t of shares[i, t] x[..., places[i, t], ...]."""

    kind = "resample"

    def others(self, table: Shape) -> tuple[Tensor, ...]:
        """The shares of the elements at these places."""
        return (Tensor(name="shares", shape=table, role=Role.CONSTANT),)

    def flops(self, attributes: SamplingAttributes, shapes: Shapes) -> int:
        """A multiply-add for each tap."""
        return 2 * attributes.taps * prod(shapes["y"])

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Vectors along what lies behind the axis."""
        before, size, after = _around(kernel)
        extent, taps = kernel.operand("places").shape
        x, y = b.buffers["x"], b.buffers["y"]
        with b.loop(0, before) as row, b.loop(0, extent) as number:
            first = [
                b.let((row * size + _place(b, number * taps + tap, size)) * after) for tap in range(taps)
            ]
            shares = [b.let(b.load(b.buffers["shares"], number * taps + tap, 1)) for tap in range(taps)]

            def body(at: Any, lanes: int) -> None:
                value = b.load(x, first[0] + at, lanes) * b.splat(shares[0], lanes)
                for start, share in zip(first[1:], shares[1:], strict=True):
                    value = b.fma(b.load(x, start + at, lanes), b.splat(share, lanes), b.let(value))
                b.store(y, (row * extent + number) * after + at, value)

            emit_map(b, after, body)

    def reference(self, attributes: SamplingAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """The sum in float64, of as many roundings as taps."""
        x, shares = arrays["x"].astype(np.float64), arrays["shares"].astype(np.float64)
        places = np.clip(arrays["places"], 0, x.shape[attributes.axis] - 1)
        tail = (1,) * (x.ndim - attributes.axis - 1)
        value = np.zeros_like(x.take(places[:, 0], axis=attributes.axis))
        magnitude = np.zeros_like(value)
        for tap in range(attributes.taps):
            part = x.take(places[:, tap], axis=attributes.axis) * shares[:, tap].reshape(-1, *tail)
            value += part
            magnitude += np.abs(part)
        return Estimate(value=value, magnitude=magnitude, roundings=attributes.taps)


def _around(kernel: Kernel) -> tuple[int, int, int]:
    """How many elements lie before the axis, along it, and behind it."""
    shape, axis = kernel.operand("x").shape, msgspec.convert(kernel.attributes, SamplingAttributes).axis
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _place(b: Any, at: Any, size: int) -> Any:
    place = b.as_index(b.load(b.buffers["places"], at, 1))
    return b.let(b.minimum(b.maximum(place, 0), size - 1))


def taken(node: Node, x: Tensor, axis: int, places: Array) -> Tensor:
    """The elements of x at these places along an axis."""
    if np.array_equal(places, np.arange(x.shape[axis])):
        return x
    table = node.constant(places.astype(np.int32).reshape(-1, 1))
    attributes = {"axis": axis, "extent": places.size}
    return node.call("take", {"x": x, "places": table}, attributes)


def resampled(node: Node, x: Tensor, axis: int, places: Array, shares: Array) -> Tensor:
    """Sums along an axis of the elements at `places`, [extent, taps], by their shares."""
    if places.shape[1] == 1 and (shares == 1).all():
        return taken(node, x, axis, places[:, 0])
    operands = {
        "x": x,
        "places": node.constant(places.astype(np.int32)),
        "shares": node.constant(shares.astype(np.float32)),
    }
    return node.call(
        "resample", operands, {"axis": axis, "extent": places.shape[0], "taps": places.shape[1]}
    )


FAMILIES = (Take(), Resample())
