"""What convolutions and poolings share: the window over an image, as listings write it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import Array, Shape, positive, widened
from kernels.operators.node import Node
from kernels.schedules.tiles import Three, Window

LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
"""Layouts of images by their number of dimensions."""


class WindowAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number for each dimension of the image: [height, width], [width], or with depth first.

    `padding` is the beginnings, then the ends: [top, left, bottom, right].
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input of a windowed operator in a listing: x, [batch, height, width, channels]."""

    x: Shape


def slide(attributes: WindowAttributes, x: Shape) -> Window:
    """The window of `attributes` over an image of shape `x`; InputError where it cannot lie."""
    rank = len(positive("attributes.kernel", attributes.kernel))
    if rank not in LAYOUTS:
        raise InputError(f"attributes.kernel has {rank} numbers, but needs 1 to 3", key="attributes.kernel")
    positive("inputs.x", x, rank=rank + 2)
    kernel = attributes.kernel
    stride = positive("attributes.stride", attributes.stride or (1,) * rank, rank=rank)
    dilation = positive("attributes.dilation", attributes.dilation or (1,) * rank, rank=rank)
    padding = attributes.padding or (0,) * (2 * rank)
    if len(padding) != 2 * rank:
        raise InputError(
            f"attributes.padding has {len(padding)} numbers, but needs {2 * rank}", key="attributes.padding"
        )
    if min(padding) < 0:
        raise InputError(
            f"attributes.padding = {list(padding)} must not be negative", key="attributes.padding"
        )
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(max(b, e) >= r for b, e, r in zip(padding[:rank], padding[rank:], reach, strict=True) if b or e):
        raise InputError("attributes.padding must be smaller than the window", key="attributes.padding")
    room = [
        s + b + e - r for s, b, e, r in zip(x[1:-1], padding[:rank], padding[rank:], reach, strict=True)
    ]
    if min(room) < 0:
        image = " x ".join(map(str, x[1:-1]))
        raise InputError(
            f"attributes.kernel = {list(kernel)} is larger than the padded image of {image}",
            key="attributes.kernel",
        )
    return Window(
        batch=x[0],
        size=three(x[1:-1]),
        channels=x[-1],
        out=three(tuple(r // s + 1 for r, s in zip(room, stride, strict=True))),
        kernel=three(kernel),
        stride=three(stride),
        dilation=three(dilation),
        padding=three(padding[:rank], fill=0),
    )


def three(values: Shape, fill: int = 1) -> Three:
    """The values of an image of fewer dimensions, the missing ones before them."""
    first, second, third = (fill,) * (3 - len(values)) + values
    return first, second, third


def output_shape(window: Window, x: Shape, channels: int) -> Shape:
    """The result's shape, of as many dimensions as the image."""
    return (window.batch, *window.outputs[3 - (len(x) - 2) :], channels)


def taps(window: Window, x: Array, fill: float) -> Iterator[tuple[int, Array]]:
    """(tap, elements) for each tap, [batch, depth, height, width, channels]; integers as they are."""
    image = widened(x).reshape(window.batch, *window.size, x.shape[-1])
    reach = [
        (window.out[a] - 1) * window.stride[a] + (window.kernel[a] - 1) * window.dilation[a] + 1
        for a in range(3)
    ]
    edges = [(window.padding[a], max(0, reach[a] - window.padding[a] - window.size[a])) for a in range(3)]
    padded = np.pad(image, [(0, 0), *edges, (0, 0)], constant_values=fill)
    for number, tap in enumerate(product(*map(range, window.kernel))):
        places = tuple(
            slice(
                tap[a] * window.dilation[a],
                tap[a] * window.dilation[a] + (window.out[a] - 1) * window.stride[a] + 1,
                window.stride[a],
            )
            for a in range(3)
        )
        yield number, padded[:, *places]


def taps_inside(window: Window, x: Array) -> Iterator[tuple[int, Array, Array]]:
    """(tap, elements, whether they lie in the image), of which the last has one channel."""
    image = np.ones((*x.shape[:-1], 1))
    for (tap, elements), (_, inside) in zip(taps(window, x, 0.0), taps(window, image, 0.0), strict=True):
        yield tap, elements, inside == 1


def imported(node: Node, image: Shape, kernel: Shape) -> WindowAttributes:
    """The window of a convolution or pooling of ONNX over an image of these extents.

    `ceil_mode` becomes padding at the ends: as much as the last window needs, which must
    begin inside of the image or of the padding before it.
    """
    rank = len(image)
    strides = tuple(node.attribute("strides", (1,) * rank))
    dilations = tuple(node.attribute("dilations", (1,) * rank))
    pads = tuple(node.attribute("pads", (0,) * (2 * rank)))
    mode = node.attribute("auto_pad", "NOTSET")
    if not len(kernel) == len(strides) == len(dilations) == len(pads) / 2 == rank:
        raise node.refuse(f"kernel, strides, dilations and pads do not fit an image of {rank} dimensions")
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise node.refuse("kernel, strides and dilations must be positive, and pads not negative")
    before, after = list(pads[:rank]), list(pads[rank:])
    for axis in range(rank):
        size, stride, reach = image[axis], strides[axis], (kernel[axis] - 1) * dilations[axis] + 1
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            missing = max(0, (-(-size // stride) - 1) * stride + reach - size)
            before[axis] = missing // 2 if mode == "SAME_UPPER" else missing - missing // 2
            after[axis] = missing - before[axis]
        elif mode == "VALID":
            before[axis] = after[axis] = 0
        if node.attribute("ceil_mode", 0) and mode in ("NOTSET", ""):
            room = size + before[axis] + after[axis] - reach
            count = -(-room // stride) + 1
            if (count - 1) * stride >= size + before[axis]:
                count -= 1
            after[axis] = max(after[axis], (count - 1) * stride + reach - size - before[axis])
    return WindowAttributes(
        kernel=tuple(kernel), stride=strides, padding=(*before, *after), dilation=dilations
    )
