"""Pooling: maximum, average, and the average over a whole image, NHWC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.elements import numpy_type
from kernels.operators.base import (
    WHOLE,
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
    exact,
    from_one_input,
    positive,
)
from kernels.operators.binary import both
from kernels.operators.node import Node, channels_first, channels_last, real
from kernels.operators.unary import applied
from kernels.operators.window import (
    LAYOUTS,
    Image,
    WindowAttributes,
    imported,
    output_shape,
    slide,
    taps,
)
from kernels.plan import Kernel
from kernels.program import ElementType, Tensor
from kernels.schedules import channels

LOWEST = -float("inf")


class PoolEntry(Entry, frozen=True, kw_only=True):
    """A pooling in a listing."""

    inputs: Image
    attributes: WindowAttributes


class _Pool(Family):
    """What all poolings share; subclasses say how elements are folded."""

    entry: ClassVar[type[Any]] = PoolEntry
    attributes: ClassVar[type[Any]] = WindowAttributes

    def define(self, entry: Any) -> Definition:
        """Tensors x and y, NHWC."""
        window = slide(self.window_attributes(entry.attributes, entry.inputs.x), entry.inputs.x)
        shape = output_shape(window, entry.inputs.x, window.channels)
        layout = LAYOUTS[len(shape) - 2]
        return from_one_input(entry.attributes, entry.inputs.x, shape, layout=layout)

    def window_attributes(self, attributes: Any, x: Shape) -> WindowAttributes:
        """The window that is slid over an image of shape `x`."""
        del x
        window: WindowAttributes = attributes
        return window

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """One for each element of the result and tap; padding is counted."""
        kernel = self.window_attributes(attributes, shapes["x"]).kernel
        return prod(shapes["y"]) * prod(kernel)

    def plan(self, attributes: Any, shapes: Shapes, weights: frozenset[str], by: Scheduler) -> Planned:
        """Channels in vectors."""
        window = slide(self.window_attributes(attributes, shapes["x"]), shapes["x"])
        schedule = by.schedule(channels.Sliding, lambda: channels.choose(window, by.cpu))
        return Planned(schedule=schedule, written_once=True)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Fold each window and store the result."""
        attributes = msgspec.convert(kernel.attributes, self.attributes)
        shape = kernel.operand("x").shape
        window = slide(self.window_attributes(attributes, shape), shape)
        dtype = kernel.output.dtype

        def finish(value: Any, pixel: Any, channel: Any, inside: Any) -> None:
            value = epilogue(self.finish(b, attributes, value, inside), pixel, channel)
            b.store(b.buffers["y"], pixel * window.channels + channel, value)

        channels.emit_window(
            b,
            window,
            msgspec.convert(kernel.schedule, channels.Sliding),
            b.buffers["x"],
            initial=self.initial if dtype.floating else least(dtype),
            finish=finish,
            combine=lambda total, element, *_: self.fold(b, total, element),
            scalar=dtype.value,
        )

    initial: float

    def fold(self, b: Any, total: Any, element: Any) -> Any:
        """One more element."""
        raise NotImplementedError

    def finish(self, b: Any, attributes: Any, value: Any, inside: Any) -> Any:
        """From the fold to the result; `inside` taps lay in the image."""
        raise NotImplementedError


def least(dtype: ElementType) -> int:
    """The smallest integer of a type."""
    return int(np.iinfo(numpy_type(dtype)).min)


def _shaped(estimate: Estimate, x: Array) -> Estimate:
    """Without the dimensions that the image does not have."""
    missing = tuple(range(1, 6 - x.ndim))
    return msgspec.structs.replace(
        estimate, value=estimate.value.squeeze(missing), magnitude=estimate.magnitude.squeeze(missing)
    )


class MaxPool(_Pool):
    """The largest element under the window; padding never wins, and neither does NaN."""

    kind = "max_pool"
    initial = LOWEST
    types = WHOLE | {ElementType.FLOAT32}

    def fold(self, b: Any, total: Any, element: Any) -> Any:
        """The larger of the two."""
        return b.select(element > total, element, total)

    def finish(self, b: Any, attributes: Any, value: Any, inside: Any) -> Any:
        """The fold is the result."""
        return value

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """No rounding: the result is exact; of NaN alone it is minus infinity."""
        x = arrays["x"]
        window = slide(attributes, x.shape)
        if x.dtype.kind == "f":
            x = np.where(np.isnan(x), LOWEST, x)
        fill = LOWEST if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        return _shaped(exact(np.max([e for _, e in taps(window, x, fill)], axis=0)), x)


class SumPool(_Pool):
    """The sum of the elements under the window."""

    kind = "sum_pool"
    initial = 0.0

    def fold(self, b: Any, total: Any, element: Any) -> Any:
        """The sum of the two."""
        return total + element

    def finish(self, b: Any, attributes: Any, value: Any, inside: Any) -> Any:
        """The fold is the result."""
        return value

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """As many additions as elements."""
        x = arrays["x"]
        window = slide(self.window_attributes(attributes, x.shape), x.shape)
        elements = np.array([e for _, e in taps(window, x, 0.0)])
        total = Estimate(
            value=np.sum(elements, axis=0),
            magnitude=np.sum(np.abs(elements), axis=0),
            roundings=len(elements),
        )
        return _shaped(total, x)


class _Average(SumPool):
    """What averages share: a sum, divided by the number of elements."""

    def includes_padding(self, attributes: Any) -> bool:
        """Whether padding counts as elements, which are zero."""
        return False

    def finish(self, b: Any, attributes: Any, value: Any, inside: Any) -> Any:
        """Divide by the number of elements."""
        count = prod(attributes.kernel) if self.includes_padding(attributes) else inside
        return value / b.splat(b.float_of(count), b.lanes(value))

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """One more rounding: a sum of ones is the number of elements."""
        total = super().reference(attributes, arrays)
        if self.includes_padding(attributes):
            count: Any = prod(attributes.kernel)
        else:
            count = super().reference(attributes, {"x": np.ones_like(arrays["x"])}).value
        return msgspec.structs.replace(
            total,
            value=total.value / count,
            magnitude=total.magnitude / count,
            roundings=total.roundings + 1,
        )


class AverageAttributes(WindowAttributes, frozen=True, kw_only=True):
    """`count_include_pad` divides by the window's size also where padding lies under it."""

    count_include_pad: bool = False


class AverageEntry(Entry, frozen=True, kw_only=True):
    """An average pooling in a listing."""

    inputs: Image
    attributes: AverageAttributes


class AveragePool(_Average):
    """The mean of the elements under the window."""

    kind = "average_pool"
    entry = AverageEntry
    attributes = AverageAttributes

    def includes_padding(self, attributes: Any) -> bool:
        """As the attribute says."""
        return bool(attributes.count_include_pad)


class GlobalAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing to say: the window is the image."""


class GlobalEntry(Entry, frozen=True, kw_only=True):
    """A global average pooling in a listing."""

    inputs: Image
    attributes: GlobalAttributes = GlobalAttributes()


class GlobalAveragePool(_Average):
    """The mean over the whole image, for each channel."""

    kind = "global_average_pool"
    entry = GlobalEntry
    attributes = GlobalAttributes

    def window_attributes(self, attributes: Any, x: Shape) -> WindowAttributes:
        """A window as large as the image."""
        positive("inputs.x", x)
        return WindowAttributes(kernel=x[1:-1])


FAMILIES = (MaxPool(), SumPool(), AveragePool(), GlobalAveragePool())


def _pool(node: Node) -> Tensor:
    x = node.given(0)
    if node.op != "MaxPool":
        real(node, x)
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refuse("the indices of the largest elements are needed, which only training has")
    if len(x.shape) - 2 not in LAYOUTS:
        raise node.refuse(f"{len(x.shape) - 2} dimensions; there are poolings over 1, 2 and 3")
    window = imported(node, x.shape[2:], tuple(node.attribute("kernel_shape", ())))
    attributes: dict[str, Any] = msgspec.to_builtins(window)
    if node.op == "AveragePool" and node.attribute("count_include_pad", 0):
        pads = tuple(node.attribute("pads", (0,) * len(window.padding)))
        if node.attribute("ceil_mode", 0) and pads != window.padding:
            raise node.refuse("count_include_pad together with a ceil_mode that adds windows")
        attributes["count_include_pad"] = True
    if node.op == "LpPool":
        return _norms(
            node,
            x,
            lambda powers: channels_first(
                node, node.call("sum_pool", {"x": channels_last(node, powers)}, attributes)
            ),
        )
    kind = "max_pool" if node.op == "MaxPool" else "average_pool"
    return channels_first(node, node.call(kind, {"x": channels_last(node, x)}, attributes))


def _norms(node: Node, x: Tensor, summed: Callable[[Tensor], Tensor]) -> Tensor:
    """The p-th root of the sum of |x|^p, as `summed` adds them up."""
    p = node.attribute("p", 2)
    powers = applied(node, "absolute", x) if p != 2 else both(node, "mul", x, x)  # noqa: PLR2004 - squares
    if p not in (1, 2):
        powers = both(node, "pow", powers, node.constant(np.array([float(p)])))
    y = summed(powers)
    if p == 1:
        return y
    if p == 2:  # noqa: PLR2004 - squares
        return applied(node, "sqrt", y)
    return both(node, "pow", y, node.constant(np.array([1.0 / p])))


def _global(node: Node) -> Tensor:
    x = node.given(0)
    real(node, x)
    axes = {"axes": tuple(range(2, len(x.shape)))}
    if node.op == "GlobalLpPool":
        return _norms(node, x, lambda powers: node.call("reduce_sum", {"x": powers}, axes))
    if node.op == "GlobalMaxPool":
        return node.call("reduce_max", {"x": x}, axes)
    if len(x.shape) - 2 not in LAYOUTS:
        return node.call("reduce_mean", {"x": x}, axes)
    return channels_first(node, node.call("global_average_pool", {"x": channels_last(node, x)}))


ONNX = {
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "GlobalAveragePool": _global,
    "GlobalLpPool": _global,
    "GlobalMaxPool": _global,
}
