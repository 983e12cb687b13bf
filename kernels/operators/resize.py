"""Resizing images, NHWC: nearest and bilinear."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np

from kernels.operators.base import (
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
)
from kernels.operators.window import Image
from kernels.plan import Kernel
from kernels.schedules.channels import emit_map


class ResizeAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`size` is [height, width] of the result.

    `nearest` takes element floor(i in / out) (ONNX: asymmetric, floor); `bilinear` samples
    at (i + 1/2) in / out - 1/2 (ONNX: half_pixel), bounded to the image.
    """

    size: tuple[int, int]
    mode: Literal["nearest", "bilinear"] = "nearest"


class ResizeEntry(Entry, frozen=True, kw_only=True):
    """A resizing in a listing."""

    inputs: Image
    attributes: ResizeAttributes


class Resize(Family):
    """An image of another height and width."""

    kind = "resize"
    entry = ResizeEntry
    attributes = ResizeAttributes

    def define(self, entry: ResizeEntry) -> Definition:
        """Tensors x and y."""
        shape = positive("inputs.x", entry.inputs.x, rank=4)
        height, width = positive("attributes.size", entry.attributes.size)
        return from_one_input(entry.attributes, shape, (shape[0], height, width, shape[3]), layout="NHWC")

    def flops(self, attributes: ResizeAttributes, shapes: Shapes) -> int:
        """Six for each element of a bilinear result: three interpolations."""
        return 6 * prod(shapes["y"]) if attributes.mode == "bilinear" else 0

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Coordinates in integers, channels in vectors."""
        attributes = msgspec.convert(kernel.attributes, ResizeAttributes)
        _, in_h, in_w, channels = kernel.operand("x").shape
        batch, out_h, out_w, _ = kernel.output.shape
        x, y = b.buffers["x"], b.buffers["y"]
        with b.loop(0, batch) as image, b.loop(0, out_h) as line, b.loop(0, out_w) as column:
            pixel = (image * out_h + line) * out_w + column
            rows = _source(b, line, in_h, out_h, attributes.mode)
            columns = _source(b, column, in_w, out_w, attributes.mode)

            def element(row: Any, place: Any, at: Any, lanes: int) -> Any:
                return b.let(b.load(x, ((image * in_h + row) * in_w + place) * channels + at, lanes))

            def body(at: Any, lanes: int) -> None:
                value = element(rows[0], columns[0], at, lanes)
                if attributes.mode == "bilinear":
                    share_x, share_y = b.splat(columns[2], lanes), b.splat(rows[2], lanes)
                    below = element(rows[1], columns[0], at, lanes)
                    right = element(rows[0], columns[1], at, lanes) - value
                    value = b.let(b.fma(b.let(right), share_x, value))
                    right = element(rows[1], columns[1], at, lanes) - below
                    below = b.let(b.fma(b.let(right), share_x, below))
                    value = b.fma(b.let(below - value), share_y, value)
                b.store(y, pixel * channels + at, epilogue(value, pixel, at))

            emit_map(b, channels, body)

    def reference(self, attributes: ResizeAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Interpolated in float64; shares are rounded once, each step three times."""
        x = arrays["x"].astype(np.float64)
        rows = _sources(x.shape[1], attributes.size[0], attributes.mode)
        columns = _sources(x.shape[2], attributes.size[1], attributes.mode)
        if attributes.mode == "nearest":
            return exact(x[:, rows[0]][:, :, columns[0]])
        size = np.abs(x[np.isfinite(x)])
        return Estimate(
            value=_interpolate(x, rows, columns),
            magnitude=3 * _interpolate(np.abs(x), rows, columns) + 2 * size.max(initial=0.0),
            roundings=8,
        )


def _source(b: Any, index: Any, size: int, result: int, mode: str) -> tuple[Any, Any, Any]:
    """The element at or before the sample, the next one, and the sample's share of it."""
    if mode == "nearest":
        return b.quotient(index * size, result), None, None
    # (i + 1/2) in / out - 1/2 in units of 1 / (2 out), not below zero.
    sample = b.maximum(index * (2 * size) + (size - result), 0)
    first = b.minimum(b.quotient(sample, 2 * result), size - 1)
    rest = sample - first * (2 * result)
    share = b.let(b.float_of(b.minimum(rest, 2 * result)) * b.constant(1.0 / (2 * result), 1))
    return first, b.minimum(first + 1, size - 1), share


def _sources(size: int, result: int, mode: str) -> tuple[Array, Array, Array]:
    index = np.arange(result)
    if mode == "nearest":
        first = index * size // result
        return first, first, np.zeros(result)
    sample = np.clip((index + 0.5) * size / result - 0.5, 0, size - 1)
    first = np.floor(sample).astype(int)
    return first, np.minimum(first + 1, size - 1), sample - first


def _interpolate(x: Array, rows: tuple[Array, Array, Array], columns: tuple[Array, Array, Array]) -> Array:
    down = rows[2][None, :, None, None]
    across = columns[2][None, None, :, None]

    def between(first: Array, second: Array, share: Array) -> Array:
        result: Array = first + (second - first) * share
        return result  # of an infinity NaN: it is taken off itself

    above, below = (
        between(line[:, :, columns[0]], line[:, :, columns[1]], across)
        for line in (x[:, rows[0]], x[:, rows[1]])
    )
    return between(above, below, down)


FAMILIES = (Resize(),)
