"""Images sampled at places that are computed: ONNX's GridSample.

As ONNX, PyTorch and onnxruntime define it: places from -1 to 1 along each axis of the image, the
last axis first; cubic interpolation is that of R. G. Keys, "Cubic convolution interpolation for
digital image processing" (IEEE Trans. ASSP 29(6), 1981), with a = -0.75.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    UNIT_ROUNDOFF,
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Planned,
    Scheduler,
    Shape,
    Shapes,
    positive,
    scattered,
)
from kernels.operators.elementary import INTEGRAL, floor, polynomial, round_even
from kernels.operators.movement import strides_of
from kernels.operators.node import Node, channels_first, channels_last
from kernels.plan import ARENA_ALIGNMENT, Kernel, Operand
from kernels.program import Role, Tensor
from kernels.schedules.channels import emit_map

Mode = Literal["nearest", "linear", "cubic"]
Padding = Literal["zeros", "border", "reflection"]
TAPS: Mapping[str, range] = {"nearest": range(1), "linear": range(2), "cubic": range(-1, 3)}
"""Elements along an axis that are mixed, counted from the one at or before the place."""
LARGEST_SHARE: Mapping[str, float] = {"nearest": 1.0, "linear": 2.0, "cubic": 16.0}
"""What the intermediate results of one share of an element stay below, in size."""
LARGEST = 1 << 22
"""Elements along an axis: float32 tells the places between neighbours apart."""
INTEGRAL_BITS = 0x4B000000
"""Of 2^23 in float32: added to a whole number below it, the number is in the bits that are low."""
FAR = 1024.0
"""Places farther away are taken for this, infinite ones too; NaN is taken for -1, as PyTorch does."""
CUBIC = -0.75
INNER = (CUBIC + 2, -(CUBIC + 3), 0.0, 1.0)
"""Keys's polynomial for elements nearer than 1, highest degree first."""
OUTER = (CUBIC, -5 * CUBIC, 8 * CUBIC, -4 * CUBIC)
"""For those from 1 to 2 away."""


class Sampled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image, [batch, height, width, channels], and the places, [batch, 2, height, width].

    With any number of axes in the place of height and width, as many as the grid's second counts.
    """

    x: Shape
    grid: Shape


class GridAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How elements are mixed, and what lies beyond the image.

    -1 and 1 are the middle of the outermost elements, or else their outer ends.
    """

    mode: Mode = "linear"
    padding: Padding = "zeros"
    align_corners: bool = False


class GridEntry(Entry, frozen=True, kw_only=True):
    """A sampling in a listing."""

    inputs: Sampled
    attributes: GridAttributes = GridAttributes()


class GridSample(Family):
    """y[b, i, j, :] = the image b at the place grid[b, :, i, j], between its elements."""

    kind = "grid_sample"
    entry: ClassVar[type[Any]] = GridEntry
    attributes = GridAttributes
    fuses = False

    def define(self, entry: GridEntry) -> Definition:
        """The image, the grid, and y with the grid's places and the image's channels."""
        x, grid = positive("inputs.x", entry.inputs.x), positive("inputs.grid", entry.inputs.grid)
        if len(grid) != len(x) or grid[:2] != (x[0], len(x) - 2) or max(x) > LARGEST:
            raise InputError(
                f"inputs.grid = {list(grid)} does not fit an image of shape {list(x)}", key="inputs.grid"
            )
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="x", shape=x, role=Role.INPUT),
                Tensor(name="grid", shape=grid, role=Role.INPUT),
            ),
            output=Tensor(name="y", shape=(x[0], *grid[2:], x[-1]), role=Role.OUTPUT),
        )

    def flops(self, attributes: GridAttributes, shapes: Shapes) -> int:
        """A multiply-add for each element that is mixed."""
        taps = prod([len(TAPS[attributes.mode])] * (len(shapes["x"]) - 2))
        return 2 * taps * prod(shapes["y"])

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Places beyond the image too, far and near."""
        if operand.name != "grid":
            return super().draw(generator, operand)
        places = generator.uniform(-1.5, 1.5, operand.shape).astype(np.float32)
        places.reshape(-1)[::7] *= 8
        return places

    def draw_special(self, kernel: Kernel, generator: np.random.Generator, operand: Operand) -> Array:
        """Finite: a place that rounds to an element or just beside it tells infinity from NaN."""
        return scattered(generator, self.drawn_for(kernel, generator, operand), finite=True)

    def plan(self, attributes: Any, shapes: Shapes, weights: frozenset[str], by: Scheduler) -> Planned:
        """Room for the elements' places and shares, of all axes and all points of one image."""
        axes, points = shapes["grid"][1], prod(shapes["grid"][2:])
        size = 2 * 4 * axes * len(TAPS[attributes.mode]) * points
        return Planned(arena_bytes=-(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """First, in vectors along the points, where elements lie and what share they have.

        Then vectors along the channels of each point. What lies nowhere has the place -1.
        """
        words = msgspec.convert(kernel.attributes, GridAttributes)
        batch, *image, columns = kernel.operand("x").shape
        steps = strides_of((*image, columns))
        points = prod(kernel.output.shape[1:-1])
        taps = len(TAPS[words.mode])
        x, grid, y, arena = (b.buffers[name] for name in ("x", "grid", "y", "arena"))

        def row(axis: int, tap: int, part: int) -> int:
            """Where in the arena a row of all points begins: of places, or of shares."""
            return ((axis * taps + tap) * 2 + part) * points

        with b.loop(0, batch) as number:
            for axis, extent in enumerate(image):

                def find(at: Any, lanes: int, axis: int = axis, extent: int = extent) -> None:
                    source = (number * len(image) + (len(image) - 1 - axis)) * points
                    given = b.let(b.load(grid, source + at, lanes))
                    for tap, (place, share) in enumerate(_taps(b, words, given, extent)):
                        b.store(arena, row(axis, tap, 0) + at, b.as_float(place))
                        b.store(arena, row(axis, tap, 1) + at, share)

                emit_map(b, points, find)
            with b.loop(0, points) as point:
                found = []
                for combined in itertools.product(range(taps), repeat=len(image)):
                    first = number * prod((*image, columns))
                    share, inside, nowhere = b.constant(1.0, 1), b.integer(0, 1), b.integer(0, 1)
                    for axis, tap in enumerate(combined):
                        place = b.let(b.as_int(b.load(arena, row(axis, tap, 0) + point, 1)))
                        first = first + b.as_index(b.select(place < nowhere, nowhere, place)) * steps[axis]
                        share = b.let(share * b.load(arena, row(axis, tap, 1) + point, 1))
                        inside = b.let(b.select(place < nowhere, place, inside))
                    found.append((b.let(first), share, inside))

                def body(column: Any, lanes: int) -> None:
                    total, zero = b.constant(0.0, lanes), b.constant(0.0, lanes)
                    for first, share, inside in found:
                        value = b.let(b.load(x, first + column, lanes))
                        there = b.equal(b.splat(inside, lanes), b.integer(0, lanes))
                        value = b.let(b.select(there, value, zero))
                        total = b.let(b.fma(value, b.splat(share, lanes), total))
                    b.store(y, (number * points + point) * columns + column, total)

                emit_map(b, columns, body)

    def reference(self, attributes: GridAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """The sum in float64, and how it changes as far as the places themselves may be off.

        A place rounds at most 6 times, by a unit each of what is no larger than the image.
        """
        x, grid = arrays["x"].astype(np.float64), arrays["grid"].astype(np.float64)
        batch, *image, columns = x.shape
        flat = grid.reshape(batch, len(image), -1)[:, ::-1].transpose(0, 2, 1)
        flat = np.clip(np.where(np.isnan(flat), -1.0, flat), -FAR, FAR)
        extents = np.array(image, np.float64)
        if attributes.align_corners:
            places = (flat + 1) / 2 * (extents - 1)
        else:
            places = ((flat + 1) * extents - 1) / 2
        off = 8 * UNIT_ROUNDOFF * ((np.abs(flat) + 1) * extents + 1)
        value, size = _mixed(attributes, x, places)
        extra = np.zeros_like(value)
        for signs in itertools.product((-1.0, 1.0), repeat=len(image)):
            moved, _ = _mixed(attributes, x, places + off * signs)
            extra = np.maximum(extra, 2 * np.abs(moved - value))
        extra[np.isnan(extra)] = np.inf  # an infinity is near, and counts with any share or none
        shape = (batch, *grid.shape[2:], columns)
        taps = len(TAPS[attributes.mode]) ** len(image)
        exact = attributes.mode == "nearest"
        return Estimate(
            value=value.reshape(shape),
            magnitude=np.zeros(shape) if exact else size.reshape(shape),
            roundings=0 if exact else taps + 12 * len(image),
            extra=extra.reshape(shape),
        )


def _taps(b: Any, words: GridAttributes, given: Any, extent: int) -> Iterator[tuple[Any, Any]]:
    """For each element along an axis where it is, or -1 where there is none, and its share.

    Each is computed when it is asked for: more of them at once would not fit the registers.
    """

    def number(value: float) -> Any:
        return b.like(value, given)

    low, high = _ends(extent, align_corners=words.align_corners)
    given = b.let(b.select(b.differ(given, given), number(-1), given))
    given = b.let(b.select(given > number(FAR), number(FAR), given))
    given = b.let(b.select(given < number(-FAR), number(-FAR), given))
    if words.align_corners:
        place = (given + number(1)) * number((extent - 1) / 2)
    else:
        place = ((given + number(1)) * number(extent) - number(1)) * number(0.5)
    place = b.let(place)
    if words.mode == "nearest":
        place = b.let(round_even(b, place))
    if words.padding == "reflection":
        place = _reflected(b, place, low, high)
    elif words.padding == "border" and words.mode != "cubic":  # which mixes four of the border's own
        place = _bounded(b, place, extent)
    first = place if words.mode == "nearest" else b.let(floor(b, place))
    shares = _shares(b, words.mode, b.let(place - first))
    for tap, share in zip(TAPS[words.mode], shares, strict=True):
        there = b.let(first + number(tap))
        if words.padding == "reflection":
            there = _reflected(b, there, low, high)
        bits = b.let(b.as_int(b.let(_bounded(b, there, extent) + number(INTEGRAL))))
        index = b.let(bits - b.like(INTEGRAL_BITS, bits))
        if words.padding == "zeros":
            nowhere = b.like(-1, index)
            index = b.let(b.select(there < number(0), nowhere, index))
            index = b.let(b.select(there > number(extent - 1), nowhere, index))
        yield index, b.let(share)


def _ends(extent: int, *, align_corners: bool) -> tuple[float, float]:
    """Where an axis begins and ends, and is reflected."""
    return (0.0, extent - 1.0) if align_corners else (-0.5, extent - 0.5)


def _bounded(b: Any, place: Any, extent: int) -> Any:
    """Within the axis; its first element for NaN."""
    zero, last = b.like(0.0, place), b.like(extent - 1.0, place)
    return b.let(b.select(place > zero, b.select(place < last, place, last), zero))


def _reflected(b: Any, place: Any, low: float, high: float) -> Any:
    """Turned back at both ends as often as needed."""
    span, half = b.like(high - low, place), b.like(0.5, place)
    first, last = b.like(low, place), b.like(high, place)
    if low == high:
        return first
    below = place < first
    beyond = b.let(b.select(below, first - place, place - last))
    turns = b.let(floor(b, b.let(beyond / span)))
    rest = b.let(beyond - turns * span)
    halves = b.let(turns * half)
    even = b.equal(b.let(floor(b, halves)), halves)
    up, down = b.let(first + rest), b.let(last - rest)
    inside = b.let(b.select(place > last, b.let(b.select(even, down, up)), place))
    return b.let(b.select(below, b.let(b.select(even, up, down)), inside))


def _shares(b: Any, mode: Mode, rest: Any) -> Iterator[Any]:
    """The share of each element for a place that lies so far behind the first one."""
    one = b.like(1.0, rest)
    if mode == "nearest":
        yield one
    elif mode == "linear":
        yield b.let(one - rest)
        yield rest
    else:
        yield polynomial(b, b.let(rest + one), OUTER)
        yield polynomial(b, rest, INNER)
        yield polynomial(b, b.let(one - rest), INNER)
        yield polynomial(b, b.let(b.let(one - rest) + one), OUTER)


def _mixed(attributes: GridAttributes, x: Array, places: Array) -> tuple[Array, Array]:
    """By NumPy: the image at places [batch, point, axis], and the sum of what its elements may add."""
    batch, *image, columns = x.shape
    value, size = (np.zeros((batch, places.shape[1], columns)) for _ in range(2))
    axes = [_numpy_taps(attributes, places[..., axis], extent) for axis, extent in enumerate(image)]
    for combined in itertools.product(*axes):
        index = tuple(place for place, _, _ in combined)
        share = np.multiply.reduce([part for _, part, _ in combined])
        within = np.logical_and.reduce([inside for _, _, inside in combined])
        element = np.where(within[..., None], x[np.arange(batch)[:, None], *index], 0.0)
        value += share[..., None] * element
        size += LARGEST_SHARE[attributes.mode] ** len(image) * np.abs(element)
    return value, size


def _numpy_taps(attributes: GridAttributes, place: Array, extent: int) -> list[tuple[Array, Array, Array]]:
    low, high = _ends(extent, align_corners=attributes.align_corners)
    if attributes.mode == "nearest":
        place = np.rint(place)
    if attributes.padding == "reflection":
        place = _mirror(place, low, high)
    elif attributes.padding == "border" and attributes.mode != "cubic":
        place = np.clip(place, 0, extent - 1)
    first = np.floor(place)
    x = place - first
    shares = {
        "nearest": [np.ones_like(x)],
        "linear": [1 - x, x],
        "cubic": [_keys(1 + x), _keys(x), _keys(1 - x), _keys(2 - x)],
    }[attributes.mode]
    found = []
    for tap, share in zip(TAPS[attributes.mode], shares, strict=True):
        there = first + tap
        if attributes.padding == "reflection":
            there = _mirror(there, low, high)
        inside = (there >= 0) & (there <= extent - 1) | (attributes.padding != "zeros")
        found.append((np.clip(there, 0, extent - 1).astype(np.int64), share, inside))
    return found


def _mirror(place: Array, low: float, high: float) -> Array:
    """A triangle wave."""
    if low == high:
        return np.full_like(place, low)
    beyond = np.mod(place - low, 2 * (high - low))
    return np.where(beyond > high - low, 2 * high - low - beyond, low + beyond)


def _keys(x: Array) -> Array:
    return np.where(x <= 1, np.polyval(INNER, x), np.polyval(OUTER, x))


MODES: Mapping[str, Mode] = {"bilinear": "linear", "bicubic": "cubic"}
"""Names in older opsets."""


def _grid_sample(node: Node) -> Tensor:
    given = node.attribute("mode", "linear")
    words = {
        "mode": MODES.get(given, given),
        "padding": node.attribute("padding_mode", "zeros"),
        "align_corners": bool(node.attribute("align_corners", 0)),
    }
    x = channels_last(node, node.given(0))
    grid = channels_first(node, node.given(1))
    return channels_first(node, node.call("grid_sample", {"x": x, "grid": grid}, words))


FAMILIES = (GridSample(),)
ONNX = {"GridSample": _grid_sample}
