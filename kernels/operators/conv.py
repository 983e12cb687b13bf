"""Convolutions over images of one, two or three dimensions, NHWC; depthwise ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from kernels.operators.node import Node, channels_first, channels_last, optional, real, reshaped
from kernels.operators.window import (
    LAYOUTS,
    Image,
    WindowAttributes,
    imported,
    output_shape,
    slide,
    taps_inside,
)
from kernels.plan import Kernel, Packing
from kernels.program import Role, Tensor
from kernels.schedules import channels, contraction
from kernels.schedules.blocking import Contraction, choose
from kernels.schedules.tiles import Three, Window

NCHW_SEEN_LAST = (0, 2, 3, 1)
"""Axes of NCHW in the order NHWC."""
MOST_PLANES = 8
"""Of an NCHW image: each is a stream of its own through the cache."""


class ConvAttributes(WindowAttributes, frozen=True, kw_only=True):
    """`filters` is the number of output channels; `x_layout` NCHW is for a network's border."""

    filters: int
    groups: int = 1
    x_layout: Literal["channels_last", "NCHW"] = "channels_last"


class ConvEntry(Entry, frozen=True, kw_only=True):
    """A convolution in a listing; `weights = []` if w is not known ahead of time."""

    inputs: Image
    attributes: ConvAttributes
    weights: tuple[Literal["w"], ...] = ("w",)


class Convolution(Family):
    """y[n, i, o] = sum over taps h and channels c of x[n, i s + h d - p, c] w[o, h, c].

    Each of `groups` blocks of filters sees its own block of channels.
    """

    entry = ConvEntry
    attributes = ConvAttributes

    def __init__(self, rank: int, *, exact: bool = False) -> None:
        """Over images of `rank` dimensions; an `exact` one sums what is there, for sums of integers."""
        self.kind = f"exact_conv{rank}d" if exact else f"conv{rank}d"
        self._rank, self._exact = rank, exact

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
                    role=role_of(entry.weights),
                ),
            ),
            output=Tensor(
                name="y",
                shape=output_shape(window, entry.inputs.x, entry.attributes.filters),
                layout=layout,
                role=Role.OUTPUT,
            ),
        )

    def absorbed(self, attributes: ConvAttributes, operand: str, permute: Shape, x: Tensor) -> Any:
        """The few channels of a network's own image, as they come."""
        first = operand == "x" and permute == NCHW_SEEN_LAST and x.role is Role.INPUT
        if not first or attributes.x_layout == "NCHW" or len(x.shape) != len(permute):
            return None
        if x.shape[1] > MOST_PLANES:
            return None
        return msgspec.structs.replace(attributes, x_layout="NCHW")

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

        They are packed in the arena where they are not known ahead. Or Winograd's algorithm,
        where that is allowed and pays.
        """
        window = _flattened(self._window(attributes, shapes["x"]), attributes)
        filters = attributes.filters
        plain = attributes.groups == 1 and attributes.x_layout == "channels_last"
        if plain and "w" in weights and not self._exact:
            fast = winograd.planned(window, filters, by)
            if fast is not None:
                return fast
        schedule = by.schedule(Contraction, lambda: choose(window, filters // attributes.groups, by.cpu))
        packing = packing_of(shapes["w"], schedule.nr, attributes.groups)
        return planned_with(packing, weights, schedule, written_once=not schedule.suspends(window))

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Loop over groups, panels of filters and tiles of pixels."""
        attributes = msgspec.convert(kernel.attributes, ConvAttributes)
        window = _flattened(self._window(attributes, kernel.operand("x").shape), attributes)
        if kernel.winograd:
            winograd.emit(b, kernel, window, epilogue)
            return
        emit_groups(b, kernel, attributes.groups, [window], _image(window, attributes), epilogue)

    def estimate(self, kernel: Kernel, arrays: Mapping[str, Array]) -> Estimate:
        """With Winograd's algorithm the same result, and a bound of its own."""
        direct = super().estimate(kernel, arrays)
        if not kernel.winograd:
            return direct
        window = self._window(msgspec.convert(kernel.attributes, ConvAttributes), kernel.operand("x").shape)
        return winograd.estimate(window, direct.value, arrays["x"], arrays["w"], kernel.winograd)

    def reference(self, attributes: ConvAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """One matrix product in float64 for each tap and group; none where a tap lies in padding."""
        x, w = arrays["x"], arrays["w"].astype(np.float64)
        window = self._window(attributes, x.shape)
        if attributes.x_layout == "NCHW":
            x = np.moveaxis(x, 1, -1)
        filters = w.reshape(attributes.groups, -1, prod(window.kernel), window.channels)
        shape = (window.batch, *window.out, attributes.groups, filters.shape[1])
        value, magnitude = np.zeros(shape), np.zeros(shape)
        for tap, elements, inside in taps_inside(window, x):
            for group in range(attributes.groups):
                part = elements[..., group * window.channels : (group + 1) * window.channels]
                weights = filters[group, :, tap].T
                value[..., group, :] += np.where(inside, part @ weights, 0.0)
                magnitude[..., group, :] += np.where(inside, np.abs(part) @ np.abs(weights), 0.0)
        result = output_shape(window, x.shape, attributes.filters)
        return Estimate(
            value=value.reshape(result),
            magnitude=magnitude.reshape(result),
            roundings=prod(w.shape[1:]) + 1,
        )


def packing_of(w: Shape, panel: int, groups: int = 1) -> Packing:
    """Filters last, in panels; groups one after the other."""
    axes = tuple(range(1, len(w)))
    return Packing(permute=(*axes, 0), rows=prod(w[1:]), columns=w[0], panel=panel, groups=groups)


def role_of(weights: tuple[str, ...]) -> Role:
    """What w is to a listing."""
    return Role.CONSTANT if "w" in weights else Role.INPUT


def planned_with(
    packing: Packing, weights: frozenset[str], schedule: msgspec.Struct, *, written_once: bool
) -> Planned:
    """The plan for w, packed when the library is built, or else in the arena by the kernel."""
    if "w" in weights:
        return Planned(schedule=schedule, packing={"w": packing}, written_once=written_once)
    return Planned(schedule=schedule, arena_bytes=4 * packing.elements, written_once=written_once)


def packed_weights(b: Any, kernel: Kernel, panel: int, groups: int = 1) -> Any:
    """The buffer in which w is packed; where it is not yet, it is emitted how the arena gets it so."""
    w = kernel.operand("w")
    if w.packing is not None:
        return b.buffers["w"]
    terms, filters = prod(w.shape[1:]), w.shape[0] // groups
    panels = b.buffers["arena"]
    with b.loop(0, groups) as group:
        contraction.emit_packing(
            b, (b.buffers["w"], panels), group * (terms * filters), (terms, filters), panel, (1, terms)
        )
    return panels


def emit_groups(
    b: Any,
    kernel: Kernel,
    groups: int,
    windows: Iterable[Window],
    image: contraction.Image,
    epilogue: Epilogue,
) -> None:
    """Emit the products of each group's channels with its filters, window by window."""
    schedule = msgspec.convert(kernel.schedule, Contraction)
    panels = packed_weights(b, kernel, schedule.nr, groups)
    filters = kernel.output.shape[-1]
    columns = filters // groups
    with b.loop(0, groups) as group:
        for window in windows:
            contraction.emit(
                b,
                contraction.Product(
                    window=window,
                    columns=columns,
                    schedule=schedule,
                    image=image,
                    x=b.buffers["x"],
                    w=panels,
                    y=b.buffers["y"],
                    packed=True,
                    epilogue=epilogue,
                    x_offset=group * window.channels,
                    w_offset=group * (window.terms * columns),
                    y_offset=group * columns,
                    y_columns=filters,
                ),
            )


def _image(window: Window, attributes: ConvAttributes) -> contraction.Image:
    """Strides of x, which holds the channels of all groups."""
    channels_in_all = window.channels * attributes.groups
    sheet = prod(window.size[1:])
    if attributes.x_layout == "NCHW":
        volume = prod(window.size)
        return contraction.Image(
            batch=volume * channels_in_all, depth=sheet, row=window.size[2], pixel=1, channel=volume
        )
    return image_of(window.size, channels_in_all)


def image_of(size: Three, channels: int) -> contraction.Image:
    """Strides of an image of (depth, height, width) with its channels last."""
    return contraction.Image(
        batch=prod(size) * channels,
        depth=prod(size[1:]) * channels,
        row=size[2] * channels,
        pixel=channels,
    )


def _flattened(window: Window, attributes: ConvAttributes) -> Window:
    """A window of one tap, without stride or padding, as a single row of pixels."""
    plain = prod(window.kernel) == prod(window.stride) == 1
    if not plain or attributes.x_layout == "NCHW":
        return window
    pixels = window.batch * prod(window.size)
    return Window(batch=1, size=(1, 1, pixels), channels=window.channels, out=(1, 1, pixels))


class DepthwiseEntry(Entry, frozen=True, kw_only=True):
    """A depthwise convolution in a listing; `weights = []` if w is not known ahead of time."""

    inputs: Image
    attributes: WindowAttributes
    weights: tuple[Literal["w"], ...] = ("w",)


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
                    role=role_of(entry.weights),
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
        schedule = by.schedule(channels.Sliding, lambda: channels.choose(window, by.cpu))
        return planned_with(packing, weights, schedule, written_once=True)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One multiply-add for each tap and vector."""
        attributes = msgspec.convert(kernel.attributes, WindowAttributes)
        window = slide(attributes, kernel.operand("x").shape)
        weights = packed_weights(b, kernel, window.channels)

        def combine(total: Any, element: Any, tap: Any, channel: Any, lanes: int) -> Any:
            weight = b.load(weights, tap * window.channels + channel, lanes)
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
        """One product in float64 for each tap; none where it lies in padding."""
        x, w = arrays["x"], arrays["w"].astype(np.float64)
        window = slide(attributes, x.shape)
        shape = (window.batch, *window.out, window.channels)
        value, magnitude = np.zeros(shape), np.zeros(shape)
        flat = w.reshape(window.channels, -1)
        for tap, elements, inside in taps_inside(window, x):
            product = np.where(inside, elements * flat[:, tap], 0.0)
            value += product
            magnitude += np.abs(product)
        result = output_shape(window, x.shape, window.channels)
        return Estimate(
            value=value.reshape(result),
            magnitude=magnitude.reshape(result),
            roundings=prod(window.kernel) + 1,
        )


FAMILIES = (
    *(Convolution(rank) for rank in LAYOUTS),
    *(Convolution(rank, exact=True) for rank in LAYOUTS),
    DepthwiseConv2D(),
)


def _conv(node: Node) -> Tensor:
    x, w = node.given(0), node.given(1)
    real(node, x, w)
    y = convolved(node, x, w)
    bias = optional(node, 2)
    if bias is not None:
        y = node.call("add", {"a": y, "b": bias})
    return channels_first(node, y)


def convolved(node: Node, x: Tensor, w: Tensor, *, exact: bool = False) -> Tensor:
    """An image and weights as ONNX has them, by the node's window: the result with channels last."""
    rank = len(x.shape) - 2
    if rank not in LAYOUTS or len(w.shape) != rank + 2:
        raise node.refuse(f"{rank} dimensions; there are convolutions over 1, 2 and 3")
    kernel, groups = w.shape[2:], node.attribute("group", 1)
    if tuple(node.attribute("kernel_shape", kernel)) != kernel:
        raise node.refuse(f"kernel_shape is not that of the weights, {list(w.shape)}")
    image, window = _padded(node, channels_last(node, x), imported(node, x.shape[2:], kernel))
    filters = channels_last(node, w)
    depthwise = rank <= 2 and 1 < groups == x.shape[1] == w.shape[0]  # noqa: PLR2004 - the family's images
    lying = _lying(image.shape, window, depthwise=depthwise)
    if lying is not None:
        window = lying
        image, filters = (
            reshaped(node, each, (each.shape[0], 1, each.shape[1], each.shape[-1]))
            for each in (image, filters)
        )
    attributes: dict[str, Any] = msgspec.to_builtins(window)
    kind = f"exact_conv{rank}d" if exact else f"conv{rank}d"
    if depthwise:
        kind = "depthwise_conv2d"
    else:
        attributes |= {"filters": w.shape[0], "groups": groups}
    weights = ("w",) if node.is_constant(w) else ()
    y = node.call(kind, {"x": image, "w": filters}, attributes, weights=weights)
    if lying is None:
        return y
    return reshaped(node, y, (y.shape[0], y.shape[2], *[1] * (rank - 1), y.shape[3]))


def _lying(image: Shape, window: WindowAttributes, *, depthwise: bool) -> WindowAttributes | None:
    """The window over one row of pixels, where the image is one column, or a sequence of separate channels.

    Register tiles lie along rows. None where the image is something else.
    """
    rank = len(window.kernel)
    column = rank == 2 and image[1] > 1 == image[2] == window.kernel[1] and not any(window.padding[1::2])  # noqa: PLR2004
    if not column and not (rank == 1 and depthwise):
        return None
    before, after = (window.padding[0], window.padding[rank]) if window.padding else (0, 0)
    return WindowAttributes(
        kernel=(1, window.kernel[0]),
        stride=(1, window.stride[0]),
        padding=(0, before, 0, after),
        dilation=(1, window.dilation[0]),
    )


def _padded(node: Node, x: Tensor, window: WindowAttributes) -> tuple[Tensor, WindowAttributes]:
    """The image with a border of zeros where the padding is as large as the window, or larger."""
    rank = len(window.kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilation, strict=True)]
    if all(p < r for p, r in zip(window.padding, (*reach, *reach), strict=True)):
        return x, window
    border = {
        "before": (0, *window.padding[:rank], 0),
        "after": (0, *window.padding[rank:], 0),
    }
    return node.call("pad", {"x": x}, border), msgspec.structs.replace(window, padding=())


ONNX = {"Conv": _conv}
