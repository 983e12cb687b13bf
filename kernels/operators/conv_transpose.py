"""Transposed convolutions over images of one, two or three dimensions, channels last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import gcd, prod
from typing import Any, Literal

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
    Planned,
    Scheduler,
    Shape,
    Shapes,
    positive,
)
from kernels.operators.conv import emit_groups, image_of, packing_of, planned_with, role_of
from kernels.operators.node import Node, channels_first, channels_last, optional, real, reshaped, transposed
from kernels.operators.window import LAYOUTS, Image, WindowAttributes, three
from kernels.plan import Kernel
from kernels.program import Role, Tensor
from kernels.schedules.blocking import Contraction, choose
from kernels.schedules.tiles import Window


class TransposedAttributes(WindowAttributes, frozen=True, kw_only=True):
    """`padding` is cut off the result, `output_padding` added at its ends."""

    filters: int
    groups: int = 1
    output_padding: tuple[int, ...] = ()


class TransposedEntry(Entry, frozen=True, kw_only=True):
    """A transposed convolution in a listing; `weights = []` if w is not known ahead of time."""

    inputs: Image
    attributes: TransposedAttributes
    weights: tuple[Literal["w"], ...] = ("w",)


class Extents(msgspec.Struct, frozen=True, kw_only=True):
    """By axis of the image; `padding` is that of the beginnings, `out` the extents of the result."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: Shape
    out: Shape


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One axis of a phase: the results `start`, `start` + stride, ..., `count` of them.

    They see taps `tap`, `tap` - `back`, ..., `taps` of them, of inputs `dilation` apart, the first
    of them `padding` before the image.
    """

    start: int
    count: int
    taps: int
    tap: int
    back: int
    dilation: int
    padding: int


class ConvTranspose(Family):
    """y[n, i s + h d - p, o] = sum of x[n, i, c] w[o, h, c]: what a convolution's gradient computes.

    Results that agree modulo the stride see the same taps: each such phase is a plain
    convolution with every s-th tap, in reverse (Dumoulin and Visin, "A guide to convolution
    arithmetic for deep learning", 2016, section 4). With a dilation d, of which g = gcd(s, d) is
    left, a phase r has the taps h d = r modulo s: none where g does not divide r, else every
    (s / g)-th, of inputs that are d / g apart.
    """

    entry = TransposedEntry
    attributes = TransposedAttributes

    def __init__(self, rank: int) -> None:
        """Over images of `rank` dimensions."""
        self.kind = f"conv_transpose{rank}d"
        self._rank = rank

    def _extents(self, attributes: TransposedAttributes, x: Shape) -> Extents:
        """InputError where attributes and image do not fit."""
        rank = self._rank
        positive("inputs.x", x, rank=rank + 2)
        positive("attributes.filters", (attributes.filters,))
        kernel = positive("attributes.kernel", attributes.kernel, rank=rank)
        stride = positive("attributes.stride", attributes.stride or (1,) * rank, rank=rank)
        dilation = positive("attributes.dilation", attributes.dilation or (1,) * rank, rank=rank)
        padding = attributes.padding or (0,) * (2 * rank)
        extra = attributes.output_padding or (0,) * rank
        if len(padding) != 2 * rank or len(extra) != rank or min(*padding, *extra) < 0:
            raise InputError(
                f"padding needs {2 * rank} and output_padding {rank} numbers, not negative",
                key="attributes.padding",
            )
        groups = attributes.groups
        if groups < 1 or x[-1] % groups or attributes.filters % groups:
            raise InputError(
                f"attributes.groups = {groups} must divide {x[-1]} channels and "
                f"{attributes.filters} filters",
                key="attributes.groups",
            )
        out = tuple(
            (x[1 + a] - 1) * stride[a]
            + (kernel[a] - 1) * dilation[a]
            + 1
            - padding[a]
            - padding[rank + a]
            + extra[a]
            for a in range(rank)
        )
        return Extents(
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            padding=padding[:rank],
            out=positive("attributes.padding: the result", out),
        )

    def define(self, entry: TransposedEntry) -> Definition:
        """Tensors x, w ([filters, taps..., channels of a group]) and y."""
        x, layout = entry.inputs.x, LAYOUTS[self._rank]
        extents = self._extents(entry.attributes, x)
        channels = x[-1] // entry.attributes.groups
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="x", shape=x, layout=layout, role=Role.INPUT),
                Tensor(
                    name="w",
                    shape=(entry.attributes.filters, *extents.kernel, channels),
                    layout=f"O{layout[1:-1]}I",
                    role=role_of(entry.weights),
                ),
            ),
            output=Tensor(
                name="y",
                shape=(x[0], *extents.out, entry.attributes.filters),
                layout=layout,
                role=Role.OUTPUT,
            ),
        )

    def flops(self, attributes: TransposedAttributes, shapes: Shapes) -> int:
        """Two for each element of the input, tap and filter of its group."""
        return 2 * prod(shapes["x"]) * prod(shapes["w"][:-1]) // attributes.groups

    def plan(
        self,
        attributes: TransposedAttributes,
        shapes: Shapes,
        weights: frozenset[str],
        by: Scheduler,
    ) -> Planned:
        """One register tile for all phases."""
        window = max(self._phases(attributes, shapes["x"]), key=lambda window: prod(window.kernel))
        groups = attributes.groups
        schedule = by.schedule(Contraction, lambda: choose(window, attributes.filters // groups, by.cpu))
        packing = packing_of(shapes["w"], schedule.nr, groups)
        return planned_with(packing, weights, schedule, written_once=not schedule.suspends(window))

    def _phases(self, attributes: TransposedAttributes, x: Shape) -> list[Window]:
        extents = self._extents(attributes, x)
        return [
            Window(
                batch=x[0],
                size=three(x[1:-1]),
                channels=x[-1] // attributes.groups,
                out=three(tuple(line.count for line in lines)),
                kernel=three(tuple(line.taps for line in lines)),
                dilation=three(tuple(line.dilation for line in lines)),
                padding=three(tuple(line.padding for line in lines), fill=0),
                tap_first=three(tuple(line.tap for line in lines), fill=0),
                tap_step=three(tuple(-line.back for line in lines)),
                taps_in_all=three(extents.kernel),
                out_first=three(tuple(line.start for line in lines), fill=0),
                out_step=three(extents.stride),
                out_in_all=three(extents.out),
            )
            for lines in product(*(list(_lines(extents, axis)) for axis in range(self._rank)))
        ]

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Phase by phase, for each group."""
        attributes = msgspec.convert(kernel.attributes, TransposedAttributes)
        shape = kernel.operand("x").shape
        image = image_of(three(shape[1:-1]), shape[-1])
        emit_groups(b, kernel, attributes.groups, self._phases(attributes, shape), image, epilogue)

    def reference(self, attributes: TransposedAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Each tap's products, added where they belong."""
        x, w = arrays["x"].astype(np.float64), arrays["w"].astype(np.float64)
        extents, rank, groups = self._extents(attributes, x.shape), self._rank, attributes.groups
        kernel, stride, dilation = extents.kernel, extents.stride, extents.dilation
        whole = [
            (x.shape[1 + a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1 + extents.out[a]
            for a in range(rank)
        ]
        shape = (x.shape[0], *whole, groups, attributes.filters // groups)
        value, magnitude = np.zeros(shape), np.zeros(shape)
        filters = w.reshape(groups, -1, *w.shape[1:])
        for tap in product(*map(range, kernel)):
            places = tuple(
                slice(tap[a] * dilation[a], tap[a] * dilation[a] + x.shape[1 + a] * stride[a], stride[a])
                for a in range(rank)
            )
            for group, part in enumerate(np.split(x, groups, axis=-1)):
                which: tuple[Any, ...] = (group, slice(None), *tap)
                there: tuple[Any, ...] = (slice(None), *places, group)
                value[there] += part @ filters[which].T
                magnitude[there] += np.abs(part) @ np.abs(filters[which].T)
        kept = tuple(slice(p, p + o) for p, o in zip(extents.padding, extents.out, strict=True))
        result = (x.shape[0], *extents.out, attributes.filters)
        return Estimate(
            value=value[:, *kept].reshape(result),
            magnitude=magnitude[:, *kept].reshape(result),
            roundings=prod(w.shape[1:]) + 1,
        )


def _lines(extents: Extents, axis: int) -> Iterator[Line]:
    """The phases along one axis: one for each result's number modulo the stride, if there is one."""
    kernel, stride, dilation = extents.kernel[axis], extents.stride[axis], extents.dilation[axis]
    padding, out = extents.padding[axis], extents.out[axis]
    common = gcd(stride, dilation)
    back = stride // common
    for phase in range(stride):
        start = (phase - padding) % stride
        count = -(-(out - start) // stride)
        first = next((tap for tap in range(min(back, kernel)) if tap * dilation % stride == phase), kernel)
        taps = -(-(kernel - first) // back)
        last = first + (taps - 1) * back
        if count > 0:
            yield Line(
                start=start,
                count=count,
                taps=taps,
                tap=last,
                back=back,
                dilation=dilation // common,
                padding=-((start + padding - last * dilation) // stride),
            )


def _conv_transpose(node: Node) -> Tensor:
    x, w = node.given(0), node.given(1)
    real(node, x, w)
    rank, groups = len(x.shape) - 2, node.attribute("group", 1)
    if rank not in LAYOUTS or len(w.shape) != rank + 2:
        raise node.refuse(f"{rank} dimensions; there are transposed convolutions over 1, 2 and 3")
    kernel = w.shape[2:]
    if tuple(node.attribute("kernel_shape", kernel)) != kernel:
        raise node.refuse(f"kernel_shape is not that of the weights, {list(w.shape)}")
    if groups < 1 or w.shape[0] % groups:
        raise node.refuse(f"{w.shape[0]} channels in {groups} groups")
    split = reshaped(node, w, (groups, w.shape[0] // groups, w.shape[1], *kernel))
    taps = range(3, 3 + rank)
    filters = reshaped(
        node,
        transposed(node, split, (0, 2, *taps, 1)),
        (groups * w.shape[1], *kernel, w.shape[0] // groups),
    )
    attributes = {
        "kernel": kernel,
        "stride": tuple(node.attribute("strides", (1,) * rank)),
        "dilation": tuple(node.attribute("dilations", (1,) * rank)),
        "filters": groups * w.shape[1],
        "groups": groups,
    }
    attributes |= _border(node, x.shape[2:], attributes)
    operands = {"x": channels_last(node, x), "w": filters}
    weights = ("w",) if node.is_constant(filters) else ()
    y = node.call(f"conv_transpose{rank}d", operands, attributes, weights=weights)
    bias = optional(node, 2)
    if bias is not None:
        y = node.call("add", {"a": y, "b": bias})
    return channels_first(node, y)


def _border(node: Node, image: Shape, window: Mapping[str, Any]) -> dict[str, Shape]:
    """What is cut off and added, where ONNX has it computed: from `output_shape`, or SAME padding."""
    rank = len(image)
    extra = tuple(node.attribute("output_padding", (0,) * rank))
    mode, wanted = node.attribute("auto_pad", "NOTSET"), node.attribute("output_shape")
    if len(extra) != rank or not len(window["stride"]) == len(window["dilation"]) == rank:
        raise node.refuse(f"strides, dilations and output_padding do not fit an image of {rank} dimensions")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [extent * stride for extent, stride in zip(image, window["stride"], strict=True)]
    if wanted is None:
        pads = (0,) * (2 * rank) if mode == "VALID" else tuple(node.attribute("pads", (0,) * (2 * rank)))
        return {"padding": pads, "output_padding": extra}
    before, after, added = [], [], []
    for axis, extent in enumerate(tuple(wanted)[-rank:]):
        reach = (window["kernel"][axis] - 1) * window["dilation"][axis] + 1
        surplus = window["stride"][axis] * (image[axis] - 1) + extra[axis] + reach - extent
        cut = max(0, surplus)
        small, large = cut // 2, cut - cut // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
        added.append(extra[axis] + max(0, -surplus))
    return {"padding": (*before, *after), "output_padding": tuple(added)}


FAMILIES = (ConvTranspose(1), ConvTranspose(2), ConvTranspose(3))
ONNX = {"ConvTranspose": _conv_transpose}
