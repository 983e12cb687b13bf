"""Convolutions over images of one, two or three dimensions, NHWC; depthwise and transposed ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators import winograd
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
from kernels.operators.window import LAYOUTS, Image, WindowAttributes, output_shape, slide, taps
from kernels.plan import Kernel, Packing
from kernels.program import Role, Tensor
from kernels.schedules import channels, contraction
from kernels.schedules.blocking import Contraction, choose
from kernels.schedules.tiles import Window


class ConvAttributes(WindowAttributes, frozen=True, kw_only=True):
    """`filters` is the number of output channels; `x_layout` NCHW is for a network's border."""

    filters: int
    groups: int = 1
    x_layout: Literal["channels_last", "NCHW"] = "channels_last"


class ConvEntry(Entry, frozen=True, kw_only=True):
    """A convolution in a listing; its weights w are a weight."""

    inputs: Image
    attributes: ConvAttributes


class Convolution(Family):
    """y[n, i, o] = sum over taps h and channels c of x[n, i s + h d - p, c] w[o, h, c].

    Each of `groups` blocks of filters sees its own block of channels.
    """

    entry = ConvEntry
    attributes = ConvAttributes

    def __init__(self, rank: int) -> None:
        """Over images of `rank` dimensions."""
        self.kind = f"conv{rank}d"
        self._rank = rank

    def _window(self, attributes: ConvAttributes, x: Shape) -> Window:
        if len(attributes.kernel) != self._rank:
            raise InputError(
                f"attributes.kernel needs {self._rank} numbers for {self.kind}", key="attributes.kernel"
            )
        if attributes.x_layout == "NCHW":
            x = (x[0], *x[2:], x[1])
        window = slide(attributes, x)
        positive("attributes.filters", (attributes.filters,))
        groups = attributes.groups
        if groups < 1 or window.channels % groups or attributes.filters % groups:
            raise InputError(
                f"attributes.groups = {groups} must divide {window.channels} channels and "
                f"{attributes.filters} filters",
                key="attributes.groups",
            )
        return msgspec.structs.replace(window, channels=window.channels // groups)

    def define(self, entry: ConvEntry) -> Definition:
        """Tensors x, w ([filters, taps..., channels of a group]) and y."""
        window = self._window(entry.attributes, entry.inputs.x)
        layout = LAYOUTS[self._rank]
        kernel = window.kernel[3 - self._rank :]
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(
                    name="x",
                    shape=entry.inputs.x,
                    layout=layout if entry.attributes.x_layout == "channels_last" else "NCHW",
                    role=Role.INPUT,
                ),
                Tensor(
                    name="w",
                    shape=(entry.attributes.filters, *kernel, window.channels),
                    layout=f"O{layout[1:-1]}I",
                    role=Role.CONSTANT,
                ),
            ),
            output=Tensor(
                name="y",
                shape=output_shape(window, entry.inputs.x, entry.attributes.filters),
                layout=layout,
                role=Role.OUTPUT,
            ),
        )

    def flops(self, attributes: ConvAttributes, shapes: Shapes) -> int:
        """Two for each element of the result, tap and input channel; padding is counted."""
        return 2 * prod(shapes["y"]) * prod(shapes["w"][1:])

    def plan(
        self,
        attributes: ConvAttributes,
        shapes: Shapes,
        weights: frozenset[str],
        by: Scheduler,
    ) -> Planned:
        """An implicit matrix product; weights as [taps, channels] x [filters] in panels of filters.

        Or Winograd's algorithm, where that is allowed and pays.
        """
        window = _flattened(self._window(attributes, shapes["x"]), attributes)
        filters = attributes.filters
        if attributes.groups == 1 and attributes.x_layout == "channels_last":
            fast = winograd.planned(window, filters, by)
            if fast is not None:
                return fast
        schedule = by.schedule(Contraction, lambda: choose(window, filters // attributes.groups, by.cpu))
        packing = _packing(shapes["w"], schedule.nr, attributes.groups)
        return Planned(schedule=schedule, packing={"w": packing})

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Loop over groups, panels of filters and tiles of pixels."""
        attributes = msgspec.convert(kernel.attributes, ConvAttributes)
        window = _flattened(self._window(attributes, kernel.operand("x").shape), attributes)
        filters = attributes.filters // attributes.groups
        if kernel.winograd:
            winograd.emit(b, kernel, window, epilogue)
            return
        with b.loop(0, attributes.groups) as group:
            contraction.emit(
                b,
                contraction.Product(
                    window=window,
                    columns=filters,
                    schedule=msgspec.convert(kernel.schedule, Contraction),
                    image=_image(window, attributes),
                    x=b.buffers["x"],
                    w=b.buffers["w"],
                    y=b.buffers["y"],
                    packed=True,
                    epilogue=epilogue,
                    x_offset=group * window.channels,
                    w_offset=group * (window.terms * filters),
                    y_offset=group * filters,
                    y_columns=attributes.filters,
                ),
            )

    def estimate(self, kernel: Kernel, arrays: Mapping[str, Array]) -> Estimate:
        """With Winograd's algorithm the same result, and a bound of its own."""
        direct = super().estimate(kernel, arrays)
        if not kernel.winograd:
            return direct
        window = self._window(msgspec.convert(kernel.attributes, ConvAttributes), kernel.operand("x").shape)
        return winograd.estimate(window, direct.value, arrays["x"], arrays["w"], kernel.winograd)

    def reference(self, attributes: ConvAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """One matrix product in float64 for each tap and group."""
        x, w = arrays["x"], arrays["w"].astype(np.float64)
        window = self._window(attributes, x.shape)
        if attributes.x_layout == "NCHW":
            x = np.moveaxis(x, 1, -1)
        filters = w.reshape(attributes.groups, -1, prod(window.kernel), window.channels)
        shape = (window.batch, *window.out, attributes.groups, filters.shape[1])
        value, magnitude = np.zeros(shape), np.zeros(shape)
        for tap, elements in taps(window, x, 0.0):
            for group in range(attributes.groups):
                part = elements[..., group * window.channels : (group + 1) * window.channels]
                value[..., group, :] += part @ filters[group, :, tap].T
                magnitude[..., group, :] += np.abs(part) @ np.abs(filters[group, :, tap]).T
        result = output_shape(window, x.shape, attributes.filters)
        return Estimate(
            value=value.reshape(result),
            magnitude=magnitude.reshape(result),
            roundings=prod(w.shape[1:]) + 1,
        )


def _packing(w: Shape, panel: int, groups: int = 1) -> Packing:
    """Filters last, in panels; groups one after the other."""
    axes = tuple(range(1, len(w)))
    return Packing(permute=(*axes, 0), rows=prod(w[1:]), columns=w[0], panel=panel, groups=groups)


def _image(window: Window, attributes: ConvAttributes) -> contraction.Image:
    """Strides of x, which holds the channels of all groups."""
    channels_in_all = window.channels * attributes.groups
    sheet = prod(window.size[1:])
    if attributes.x_layout == "NCHW":
        volume = prod(window.size)
        return contraction.Image(
            batch=volume * channels_in_all, depth=sheet, row=window.size[2], pixel=1, channel=volume
        )
    return contraction.Image(
        batch=prod(window.size) * channels_in_all,
        depth=sheet * channels_in_all,
        row=window.size[2] * channels_in_all,
        pixel=channels_in_all,
    )


def _flattened(window: Window, attributes: ConvAttributes) -> Window:
    """A window of one tap, without stride or padding, as a single row of pixels."""
    plain = prod(window.kernel) == prod(window.stride) == 1
    if not plain or attributes.x_layout == "NCHW":
        return window
    pixels = window.batch * prod(window.size)
    return Window(batch=1, size=(1, 1, pixels), channels=window.channels, out=(1, 1, pixels))


class TransposedAttributes(WindowAttributes, frozen=True, kw_only=True):
    """`padding` is cut off the result, `output_padding` added at its ends."""

    filters: int
    output_padding: tuple[int, ...] = ()


class TransposedEntry(Entry, frozen=True, kw_only=True):
    """A transposed convolution in a listing; its weights w are a weight."""

    inputs: Image
    attributes: TransposedAttributes


class ConvTranspose2D(Family):
    """y[n, i s + h - p, o] = sum of x[n, i, c] w[o, h, c]: what a convolution's gradient computes.

    Results that agree modulo the stride see the same taps: each such phase is a plain
    convolution with every s-th tap, in reverse (Dumoulin and Visin, "A guide to convolution
    arithmetic for deep learning", 2016, section 4).
    """

    kind = "conv_transpose2d"
    entry = TransposedEntry
    attributes = TransposedAttributes

    @staticmethod
    def _extents(attributes: TransposedAttributes, x: Shape) -> tuple[Shape, Shape, Shape, Shape]:
        """kernel, stride, padding at the beginnings, extents of the result."""
        positive("inputs.x", x, rank=4)
        positive("attributes.filters", (attributes.filters,))
        kernel = positive("attributes.kernel", attributes.kernel, rank=2)
        stride = positive("attributes.stride", attributes.stride or (1, 1), rank=2)
        padding = attributes.padding or (0, 0, 0, 0)
        extra = attributes.output_padding or (0, 0)
        if attributes.dilation not in ((), (1, 1)):
            raise InputError("conv_transpose2d takes no dilation", key="attributes.dilation")
        if len(padding) != 4 or len(extra) != 2 or min(*padding, *extra) < 0:  # noqa: PLR2004 - two dimensions
            raise InputError(
                "padding needs 4 and output_padding 2 numbers, not negative", key="attributes.padding"
            )
        out = tuple(
            (x[1 + a] - 1) * stride[a] + kernel[a] - padding[a] - padding[2 + a] + extra[a] for a in (0, 1)
        )
        return kernel, stride, padding[:2], positive("attributes.padding: the result", out)

    def define(self, entry: TransposedEntry) -> Definition:
        """Tensors x (NHWC), w (OHWI) and y (NHWC)."""
        x = entry.inputs.x
        kernel, _, _, out = self._extents(entry.attributes, x)
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="x", shape=x, layout="NHWC", role=Role.INPUT),
                Tensor(
                    name="w",
                    shape=(entry.attributes.filters, *kernel, x[3]),
                    layout="OHWI",
                    role=Role.CONSTANT,
                ),
            ),
            output=Tensor(
                name="y", shape=(x[0], *out, entry.attributes.filters), layout="NHWC", role=Role.OUTPUT
            ),
        )

    def flops(self, attributes: TransposedAttributes, shapes: Shapes) -> int:
        """Two for each element of the input, tap and filter."""
        return 2 * prod(shapes["x"]) * prod(shapes["w"][:-1])

    def plan(
        self,
        attributes: TransposedAttributes,
        shapes: Shapes,
        weights: frozenset[str],
        by: Scheduler,
    ) -> Planned:
        """One register tile for all phases."""
        window = self._phases(attributes, shapes["x"])[0]
        schedule = by.schedule(Contraction, lambda: choose(window, attributes.filters, by.cpu))
        return Planned(schedule=schedule, packing={"w": _packing(shapes["w"], schedule.nr)})

    def _phases(self, attributes: TransposedAttributes, x: Shape) -> list[Window]:
        kernel, stride, padding, out = self._extents(attributes, x)
        found = []
        for phase in product(*map(range, stride)):
            first = [-(-(padding[a] - phase[a]) // stride[a]) for a in (0, 1)]
            start = [stride[a] * first[a] + phase[a] - padding[a] for a in (0, 1)]
            count = [-(-(out[a] - start[a]) // stride[a]) for a in (0, 1)]
            reach = [-(-(kernel[a] - phase[a]) // stride[a]) for a in (0, 1)]
            if min(count) < 1:
                continue
            found.append(
                Window(
                    batch=x[0],
                    size=(1, x[1], x[2]),
                    channels=x[3],
                    out=(1, count[0], count[1]),
                    kernel=(1, max(0, reach[0]), max(0, reach[1])),
                    padding=(0, reach[0] - 1 - first[0], reach[1] - 1 - first[1]),
                    tap_first=(
                        0,
                        phase[0] + stride[0] * (reach[0] - 1),
                        phase[1] + stride[1] * (reach[1] - 1),
                    ),
                    tap_step=(1, -stride[0], -stride[1]),
                    taps_in_all=(1, kernel[0], kernel[1]),
                    out_first=(0, start[0], start[1]),
                    out_step=(1, stride[0], stride[1]),
                    out_in_all=(1, out[0], out[1]),
                )
            )
        return found

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Phase by phase."""
        attributes = msgspec.convert(kernel.attributes, TransposedAttributes)
        _, height, width, depth = kernel.operand("x").shape
        for window in self._phases(attributes, kernel.operand("x").shape):
            contraction.emit(
                b,
                contraction.Product(
                    window=window,
                    columns=attributes.filters,
                    schedule=msgspec.convert(kernel.schedule, Contraction),
                    image=contraction.Image(batch=height * width * depth, row=width * depth, pixel=depth),
                    x=b.buffers["x"],
                    w=b.buffers["w"],
                    y=b.buffers["y"],
                    packed=True,
                    epilogue=epilogue,
                ),
            )

    def reference(self, attributes: TransposedAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Each tap's products, added where they belong."""
        x, w = arrays["x"].astype(np.float64), arrays["w"].astype(np.float64)
        kernel, stride, padding, out = self._extents(attributes, x.shape)
        whole = [(x.shape[1 + a] - 1) * stride[a] + kernel[a] + out[a] for a in (0, 1)]
        shape = (x.shape[0], *whole, attributes.filters)
        value, magnitude = np.zeros(shape), np.zeros(shape)
        for row, column in product(*map(range, kernel)):
            rows = slice(row, row + x.shape[1] * stride[0], stride[0])
            columns = slice(column, column + x.shape[2] * stride[1], stride[1])
            value[:, rows, columns] += x @ w[:, row, column].T
            magnitude[:, rows, columns] += np.abs(x) @ np.abs(w[:, row, column]).T
        kept = tuple(slice(padding[a], padding[a] + out[a]) for a in (0, 1))
        return Estimate(
            value=value[:, *kept], magnitude=magnitude[:, *kept], roundings=prod(w.shape[1:]) + 1
        )


class DepthwiseEntry(Entry, frozen=True, kw_only=True):
    """A depthwise convolution in a listing; its weights w are a weight."""

    inputs: Image
    attributes: WindowAttributes


class DepthwiseConv2D(Family):
    """y[n, i, c] = sum over taps h of x[n, i s + h d - p, c] w[c, h, 0]."""

    kind = "depthwise_conv2d"
    entry = DepthwiseEntry
    attributes = WindowAttributes

    def define(self, entry: DepthwiseEntry) -> Definition:
        """Tensors x (NHWC), w (OHWI with one input channel) and y (NHWC)."""
        positive("inputs.x", entry.inputs.x, rank=4)
        window = slide(entry.attributes, entry.inputs.x)
        shape = output_shape(window, entry.inputs.x, window.channels)
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="x", shape=entry.inputs.x, layout="NHWC", role=Role.INPUT),
                Tensor(
                    name="w",
                    shape=(window.channels, *window.kernel[1:], 1),
                    layout="OHWI",
                    role=Role.CONSTANT,
                ),
            ),
            output=Tensor(name="y", shape=shape, layout="NHWC", role=Role.OUTPUT),
        )

    def flops(self, attributes: WindowAttributes, shapes: Shapes) -> int:
        """Two for each element of the result and tap; padding is counted."""
        return 2 * prod(shapes["y"]) * prod(attributes.kernel)

    def plan(
        self,
        attributes: WindowAttributes,
        shapes: Shapes,
        weights: frozenset[str],
        by: Scheduler,
    ) -> Planned:
        """Channels in vectors; weights as [h, w] x [c], in one panel."""
        window = slide(attributes, shapes["x"])
        packing = Packing(
            permute=(3, 1, 2, 0),
            rows=prod(window.kernel),
            columns=window.channels,
            panel=window.channels,
            groups=1,
        )
        return Planned(
            schedule=by.schedule(channels.Sliding, lambda: channels.choose(window, by.cpu)),
            packing={"w": packing},
        )

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One multiply-add for each tap and vector."""
        attributes = msgspec.convert(kernel.attributes, WindowAttributes)
        window = slide(attributes, kernel.operand("x").shape)

        def combine(total: Any, element: Any, tap: Any, channel: Any, lanes: int) -> Any:
            weight = b.load(b.buffers["w"], tap * window.channels + channel, lanes)
            return b.fma(element, weight, total)

        def finish(value: Any, pixel: Any, channel: Any, _: Any) -> None:
            place = pixel * window.channels + channel
            b.store(b.buffers["y"], place, epilogue(value, pixel, channel))

        channels.emit_window(
            b,
            window,
            msgspec.convert(kernel.schedule, channels.Sliding),
            b.buffers["x"],
            initial=0.0,
            combine=combine,
            finish=finish,
        )

    def reference(self, attributes: WindowAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """One product in float64 for each tap."""
        x, w = arrays["x"], arrays["w"].astype(np.float64)
        window = slide(attributes, x.shape)
        shape = (window.batch, *window.out, window.channels)
        value, magnitude = np.zeros(shape), np.zeros(shape)
        flat = w.reshape(window.channels, -1)
        for tap, elements in taps(window, x, 0.0):
            value += elements * flat[:, tap]
            magnitude += np.abs(elements * flat[:, tap])
        result = output_shape(window, x.shape, window.channels)
        return Estimate(
            value=value.reshape(result),
            magnitude=magnitude.reshape(result),
            roundings=prod(window.kernel) + 1,
        )


FAMILIES = (Convolution(1), Convolution(2), Convolution(3), ConvTranspose2D(), DepthwiseConv2D())
