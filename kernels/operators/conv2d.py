"""2-D convolution and depthwise convolution, NHWC, any kernel size, stride and padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Planned,
    Shape,
    positive,
)
from kernels.operators.window import Image, WindowAttributes, slide, taps
from kernels.plan import Kernel, Packing
from kernels.program import Role, Tensor
from kernels.schedules import channels, contraction
from kernels.schedules.tiles import Window
from toolchains.target import CPU


class ConvAttributes(WindowAttributes, frozen=True, kw_only=True):
    """`filters` is the number of output channels."""

    filters: int


class ConvEntry(Entry, frozen=True, kw_only=True):
    """A convolution in a listing; its weights w are a weight."""

    inputs: Image
    attributes: ConvAttributes


class Conv2D(Family):
    """y[n, i, j, o] = sum over h, w, c of x[n, i s + h - p, j s + w - p, c] w[o, h, w, c]."""

    kind = "conv2d"
    entry = ConvEntry
    attributes = ConvAttributes

    def define(self, entry: ConvEntry) -> Definition:
        """Tensors x (NHWC), w (OHWI) and y (NHWC)."""
        window = slide(entry.attributes, entry.inputs.x)
        (filters,) = positive("attributes.filters", (entry.attributes.filters,))
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="x", shape=entry.inputs.x, layout="NHWC", role=Role.INPUT),
                Tensor(
                    name="w",
                    shape=(filters, *window.kernel, window.channels),
                    layout="OHWI",
                    role=Role.CONSTANT,
                ),
            ),
            output=Tensor(
                name="y",
                shape=(window.batch, window.out_h, window.out_w, filters),
                layout="NHWC",
                role=Role.OUTPUT,
            ),
        )

    def flops(self, attributes: ConvAttributes, shapes: Mapping[str, Shape]) -> int:
        """Two for each element of the result, tap and input channel; padding is counted."""
        return 2 * int(np.prod(shapes["y"])) * int(np.prod(shapes["w"][1:]))

    def plan(
        self, attributes: ConvAttributes, shapes: Mapping[str, Shape], weights: frozenset[str], cpu: CPU
    ) -> Planned:
        """An implicit matrix product; weights as [h, w, c] x [o] in panels of o."""
        window, filters = _flattened(slide(attributes, shapes["x"])), attributes.filters
        schedule = contraction.choose(window, filters, cpu)
        packing = Packing(
            permute=(1, 2, 3, 0), rows=int(np.prod(shapes["w"][1:])), columns=filters, panel=schedule.nr
        )
        return Planned(schedule=schedule, packing={"w": packing})

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Loop over panels of filters and tiles of pixels, as the schedule says."""
        attributes = msgspec.convert(kernel.attributes, ConvAttributes)
        window = _flattened(slide(attributes, kernel.operand("x").shape))
        image = contraction.Image(
            batch=window.in_h * window.in_w * window.channels,
            row=window.in_w * window.channels,
            pixel=window.channels,
        )

        contraction.emit(
            b,
            contraction.Product(
                window=window,
                columns=attributes.filters,
                schedule=msgspec.convert(kernel.schedule, contraction.Contraction),
                image=image,
                x=b.buffers["x"],
                w=b.buffers["w"],
                y=b.buffers["y"],
                packed=True,
                epilogue=epilogue,
            ),
        )

    def reference(self, attributes: ConvAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """One matrix product in float64 for each tap."""
        window = slide(attributes, arrays["x"].shape)
        w = arrays["w"].astype(np.float64)
        shape = (window.batch, window.out_h, window.out_w, attributes.filters)
        value, magnitude = np.zeros(shape), np.zeros(shape)
        for row, column, elements in taps(window, arrays["x"], 0.0):
            value += elements @ w[:, row, column, :].T
            magnitude += np.abs(elements) @ np.abs(w[:, row, column, :]).T
        return Estimate(value=value, magnitude=magnitude, roundings=int(np.prod(w.shape[1:])) + 1)


def _flattened(window: Window) -> Window:
    """A window of one tap, without stride or padding, as a single row of pixels."""
    if window.kernel != (1, 1) or window.stride != (1, 1):
        return window
    pixels = window.batch * window.in_h * window.in_w
    return Window(batch=1, in_h=1, in_w=pixels, channels=window.channels, out_h=1, out_w=pixels)


class DepthwiseEntry(Entry, frozen=True, kw_only=True):
    """A depthwise convolution in a listing; its weights w are a weight."""

    inputs: Image
    attributes: WindowAttributes


class DepthwiseConv2D(Family):
    """y[n, i, j, c] = sum over h, w of x[n, i s + h - p, j s + w - p, c] w[c, h, w, 0]."""

    kind = "depthwise_conv2d"
    entry = DepthwiseEntry
    attributes = WindowAttributes

    def define(self, entry: DepthwiseEntry) -> Definition:
        """Tensors x (NHWC), w (OHWI with one input channel) and y (NHWC)."""
        window = slide(entry.attributes, entry.inputs.x)
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="x", shape=entry.inputs.x, layout="NHWC", role=Role.INPUT),
                Tensor(
                    name="w", shape=(window.channels, *window.kernel, 1), layout="OHWI", role=Role.CONSTANT
                ),
            ),
            output=Tensor(
                name="y",
                shape=(window.batch, window.out_h, window.out_w, window.channels),
                layout="NHWC",
                role=Role.OUTPUT,
            ),
        )

    def flops(self, attributes: WindowAttributes, shapes: Mapping[str, Shape]) -> int:
        """Two for each element of the result and tap; padding is counted."""
        return 2 * int(np.prod(shapes["y"])) * attributes.kernel[0] * attributes.kernel[1]

    def plan(
        self, attributes: WindowAttributes, shapes: Mapping[str, Shape], weights: frozenset[str], cpu: CPU
    ) -> Planned:
        """Channels in vectors; weights as [h, w] x [c], in one panel."""
        window = slide(attributes, shapes["x"])
        packing = Packing(
            permute=(3, 1, 2, 0),
            rows=window.kernel[0] * window.kernel[1],
            columns=window.channels,
            panel=window.channels,
        )
        return Planned(schedule=channels.choose(window, cpu), packing={"w": packing})

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One multiply-add for each tap and vector."""
        attributes = msgspec.convert(kernel.attributes, WindowAttributes)
        window = slide(attributes, kernel.operand("x").shape)

        def combine(total: Any, element: Any, row: Any, column: Any, channel: Any, lanes: int) -> Any:
            tap = row * window.kernel[1] + column
            return b.fma(element, b.load(b.buffers["w"], tap * window.channels + channel, lanes), total)

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
        window = slide(attributes, arrays["x"].shape)
        w = arrays["w"].astype(np.float64)
        shape = (window.batch, window.out_h, window.out_w, window.channels)
        value, magnitude = np.zeros(shape), np.zeros(shape)
        for row, column, elements in taps(window, arrays["x"], 0.0):
            value += elements * w[:, row, column, 0]
            magnitude += np.abs(elements * w[:, row, column, 0])
        return Estimate(value=value, magnitude=magnitude, roundings=window.kernel[0] * window.kernel[1] + 1)


FAMILIES = (Conv2D(), DepthwiseConv2D())
