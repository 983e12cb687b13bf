"""Transposed convolutions over images of two dimensions, NHWC."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
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
    Planned,
    Scheduler,
    Shape,
    Shapes,
    positive,
)
from kernels.operators.conv import packing_of
from kernels.operators.node import Node, channels_first, channels_last, real
from kernels.operators.window import Image, WindowAttributes
from kernels.plan import Kernel
from kernels.program import Role, Tensor
from kernels.schedules import contraction
from kernels.schedules.blocking import Contraction, choose
from kernels.schedules.tiles import Window


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
        return Planned(
            schedule=schedule,
            packing={"w": packing_of(shapes["w"], schedule.nr)},
            written_once=not schedule.suspends(window),
        )

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


def _conv_transpose(node: Node) -> Tensor:
    x, w = node.given(0), node.known(1, "weights")
    real(node, x, node.given(1))
    if len(x.shape) != 4 or node.attribute("group", 1) != 1:  # noqa: PLR2004 - NCHW
        raise node.refuse("only transposed convolutions over 2 dimensions, in one group, are there")
    if node.attribute("output_shape") or node.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise node.refuse("give pads and output_padding instead of output_shape or auto_pad")
    attributes = {
        "kernel": w.shape[2:],
        "stride": node.attribute("strides", (1, 1)),
        "padding": node.attribute("pads", (0, 0, 0, 0)),
        "dilation": node.attribute("dilations", (1, 1)),
        "output_padding": node.attribute("output_padding", (0, 0)),
        "filters": w.shape[1],
    }
    weights = node.constant(np.ascontiguousarray(w.transpose(1, 2, 3, 0)))
    y = node.call("conv_transpose2d", {"x": channels_last(node, x), "w": weights}, attributes)
    if len(node.inputs) > 2 and node.inputs[2] is not None:  # noqa: PLR2004 - the bias
        y = node.call("add", {"a": y, "b": node.given(2)})
    return channels_first(node, y)


FAMILIES = (ConvTranspose2D(),)
ONNX = {"ConvTranspose": _conv_transpose}
