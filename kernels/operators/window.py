"""What convolutions and poolings share: the window over an NHWC image, as listings write it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import Array, Shape, positive
from kernels.schedules.tiles import Window

Pair = tuple[int, int]
Edges = tuple[int, int, int, int]


class WindowAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kernel` and `stride` are [height, width]; `padding` is [top, left, bottom, right]."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Edges = (0, 0, 0, 0)


class Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input of a windowed operator in a listing: x, [batch, height, width, channels]."""

    x: Shape


def slide(attributes: WindowAttributes, x: Shape) -> Window:
    """The window of `attributes` over an image of shape `x`; InputError where it cannot lie."""
    batch, height, width, channels = positive("inputs.x", x, rank=4)
    kernel, stride = attributes.kernel, attributes.stride
    positive("attributes.kernel", kernel)
    positive("attributes.stride", stride)
    top, left, bottom, right = attributes.padding
    if min(attributes.padding) < 0:
        raise InputError(
            f"attributes.padding = {list(attributes.padding)} must not be negative",
            key="attributes.padding",
        )
    if max(top, bottom) >= kernel[0] or max(left, right) >= kernel[1]:
        raise InputError(
            "attributes.padding must be smaller than attributes.kernel", key="attributes.padding"
        )
    room = height + top + bottom - kernel[0], width + left + right - kernel[1]
    if min(room) < 0:
        raise InputError(
            f"attributes.kernel = {list(kernel)} is larger than the padded image of {x[1]} x {x[2]}",
            key="attributes.kernel",
        )
    return Window(
        batch=batch,
        in_h=height,
        in_w=width,
        channels=channels,
        out_h=room[0] // stride[0] + 1,
        out_w=room[1] // stride[1] + 1,
        kernel=kernel,
        stride=stride,
        top=top,
        left=left,
    )


def taps(window: Window, x: Array, fill: float) -> Iterator[tuple[int, int, Array]]:
    """(row, column, elements) for each tap, the elements in float64, [batch, h, w, channels]."""
    bottom = max(0, (window.out_h - 1) * window.stride[0] + window.kernel[0] - window.top - window.in_h)
    right = max(0, (window.out_w - 1) * window.stride[1] + window.kernel[1] - window.left - window.in_w)
    edges = ((0, 0), (window.top, bottom), (window.left, right), (0, 0))
    padded = np.pad(x.astype(np.float64), edges, constant_values=fill)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            yield (
                row,
                column,
                padded[
                    :,
                    row : row + (window.out_h - 1) * window.stride[0] + 1 : window.stride[0],
                    column : column + (window.out_w - 1) * window.stride[1] + 1 : window.stride[1],
                ],
            )
