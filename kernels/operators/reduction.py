"""Reductions over any axes: sums, mean, largest, smallest, product, norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators import whole_numbers
from kernels.operators.base import (
    FLOATING,
    NUMBERS,
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    exact,
    from_one_input,
    positive,
    widened,
)
from kernels.operators.binary import both
from kernels.operators.cast import cast
from kernels.operators.elementary import absolute, log
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, axis_of, integers, real, reshaped
from kernels.operators.unary import applied
from kernels.plan import Kernel
from kernels.program import ElementType, Tensor
from kernels.schedules import channels


class AxesAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which axes are reduced (negative: from the last), and whether they stay with extent 1."""

    axes: tuple[int, ...]
    keepdims: bool = True


class ReduceEntry(Entry, frozen=True, kw_only=True):
    """A reduction in a listing."""

    inputs: OneInput
    attributes: AxesAttributes


class Reduction(Family):
    """y = fold of x over the axes, then a final step."""

    entry = ReduceEntry
    attributes = AxesAttributes
    fuses = False

    def __init__(
        self,
        kind: str,
        *,
        initial: float,
        fold: Callable[[Any, Any, Any], Any],
        element: Callable[[Any, Any], Any] = lambda b, x: x,
        final: Callable[[Any, Any, int], Any] = lambda b, x, n: x,
        reference: Callable[[Array, tuple[int, ...], bool], Estimate],
        types: frozenset[ElementType] = FLOATING,
    ) -> None:
        """`fold` joins two, after `element` on each; `final` gets how many there were."""
        self.kind, self.types = kind, types
        self._initial, self._fold, self._element, self._final = initial, fold, element, final
        self._reference = reference

    def define(self, entry: ReduceEntry) -> Definition:
        """Tensors x and y."""
        shape = positive("inputs.x", entry.inputs.x)
        axes = normalized(entry.attributes.axes, len(shape))
        kept = [1 if axis in axes else extent for axis, extent in enumerate(shape)]
        if not entry.attributes.keepdims:
            kept = [extent for axis, extent in enumerate(shape) if axis not in axes] or [1]
        return from_one_input(entry.attributes, shape, tuple(kept))

    def carried(self, attributes: AxesAttributes, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Over the same axes, wherever they lie, if they stay."""
        found = [axes.get(axis) for axis in normalized(attributes.axes, rank)]
        if None in found or not attributes.keepdims:
            return None
        return AxesAttributes(axes=tuple(sorted(axis for axis in found if axis is not None)))

    def flops(self, attributes: AxesAttributes, shapes: Shapes) -> int:
        """One for each element of the input."""
        return prod(shapes["x"])

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Vectors along the last axis: lanes are kept apart if it is kept, joined if it is reduced."""
        attributes = msgspec.convert(kernel.attributes, AxesAttributes)
        shape = kernel.operand("x").shape
        blocks = grouped(shape, normalized(attributes.axes, len(shape)))
        count = prod(extent for extent, reduced in blocks if reduced)
        strides = [prod(extent for extent, _ in blocks[i + 1 :]) for i in range(len(blocks))]
        kept = [(e, s) for (e, reduced), s in zip(blocks[:-1], strides, strict=False) if not reduced]
        folded = [(e, s) for (e, reduced), s in zip(blocks[:-1], strides, strict=False) if reduced]
        columns, last_reduced = blocks[-1]

        computed = kernel.output.dtype
        scalar = "float32" if computed.floating else computed.value
        initial = self._start(computed)

        def store(value: Any, place: Any) -> None:
            b.write(b.buffers["y"], place, epilogue(self._final(b, value, count), 0, place))

        with ExitStack() as loops:
            start, row = _enter(b, loops, kept)
            if last_reduced:
                total = b.registers([1], scalar)
                total[0] = b.constant(initial, 1, scalar)
                with ExitStack() as inner:
                    offset, _ = _enter(b, inner, folded)
                    total[0] = self._join(
                        b, total[0], self._row(b, start + offset, columns, initial, scalar)
                    )
                store(total[0], row)
            else:

                def body(column: Any, lanes: int) -> None:
                    accumulator = b.registers([lanes], scalar)
                    accumulator[0] = b.constant(initial, lanes, scalar)
                    with ExitStack() as inner:
                        offset, _ = _enter(b, inner, folded)
                        value = b.let(b.read(b.buffers["x"], start + offset + column, lanes))
                        accumulator[0] = self._join(b, accumulator[0], self._element(b, value))
                    store(accumulator[0], row * columns + column)

                channels.emit_map(b, columns, body)

    def _join(self, b: Any, total: Any, value: Any) -> Any:
        return self._fold(b, b.let(total), b.let(value))

    def _start(self, dtype: ElementType) -> float:
        """What the fold begins with: an infinity is the least or the largest integer."""
        if dtype.floating or np.isfinite(self._initial):
            return self._initial if dtype.floating else int(self._initial)
        info = np.iinfo(dtype.value)
        return int(info.min if self._initial < 0 else info.max)

    def _row(self, b: Any, start: Any, columns: int, initial: float, scalar: str) -> Any:
        return channels.emit_fold(
            b,
            start,
            columns,
            initial,
            lambda at, lanes: self._element(b, b.let(b.read(b.buffers["x"], at, lanes))),
            lambda total, value: self._join(b, total, value),
            scalar=scalar,
        )

    def reference(self, attributes: AxesAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """The fold in float64, or in the integers' own type, whose products and sums wrap."""
        x = widened(arrays["x"])
        estimate = self._reference(x, normalized(attributes.axes, x.ndim), attributes.keepdims)
        shape = estimate.value.shape or (1,)
        return msgspec.structs.replace(
            estimate, value=estimate.value.reshape(shape), magnitude=estimate.magnitude.reshape(shape)
        )


def normalized(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The axes counted from the first, sorted; InputError if one is not there or is named twice."""
    found = sorted(axis + rank if axis < 0 else axis for axis in axes)
    if not found or found[0] < 0 or found[-1] >= rank or len(set(found)) != len(found):
        raise InputError(f"attributes.axes = {list(axes)} do not fit {rank} axes", key="attributes.axes")
    return tuple(found)


def grouped(shape: Shape, axes: tuple[int, ...]) -> list[tuple[int, bool]]:
    """Neighbouring axes that are all kept or all reduced, merged: (extent, reduced)."""
    blocks: list[tuple[int, bool]] = []
    for axis, extent in enumerate(shape):
        reduced = axis in axes
        if blocks and blocks[-1][1] == reduced:
            blocks[-1] = (blocks[-1][0] * extent, reduced)
        else:
            blocks.append((extent, reduced))
    return blocks


def _enter(b: Any, loops: ExitStack, axes: list[tuple[int, int]]) -> tuple[Any, Any]:
    """Open a loop for each (extent, stride): the offset in the input, and the running number."""
    offset: Any = 0
    number: Any = 0
    for extent, stride in axes:
        index = loops.enter_context(b.loop(0, extent))
        offset = offset + index * stride
        number = number * extent + index
    return offset, number


def larger(b: Any, total: Any, value: Any) -> Any:
    """The larger of what was found and a value, or NaN if that is one."""
    joined = b.let(b.select(value > total, value, total))
    return b.select(b.differ(value, value), value, joined)


def smaller(b: Any, total: Any, value: Any) -> Any:
    """The smaller of what was found and a value, or NaN if that is one."""
    joined = b.let(b.select(value < total, value, total))
    return b.select(b.differ(value, value), value, joined)


def _count(x: Array, axes: tuple[int, ...]) -> int:
    return prod(x.shape[axis] for axis in axes)


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    return Estimate(
        value=np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype),
        magnitude=np.sum(np.abs(x), axis=axes, keepdims=keepdims),
        roundings=_count(x, axes),
    )


def _mean(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    total, count = _sum(x, axes, keepdims), _count(x, axes)
    if x.dtype.kind in "iu":
        return exact(whole_numbers.exact_quotient(total.value, np.array(count, x.dtype)))
    return Estimate(value=total.value / count, magnitude=total.magnitude / count, roundings=count + 2)


def _product(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    value = np.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)
    return Estimate(value=value, magnitude=np.abs(value), roundings=_count(x, axes))


def _magnitudes(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    return _sum(_absolute(x), axes, keepdims)


def _absolute(x: Array) -> Array:
    """|x|; of integers the least stays as it is, as the kernel's does."""
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(x))


def _squares(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    total = _sum(x * x, axes, keepdims)
    return msgspec.structs.replace(total, roundings=total.roundings + 1)


def _log_sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    """What the sum is off by in proportion is added to its logarithm."""
    total = _sum(x, axes, keepdims)
    with np.errstate(all="ignore"):
        value = np.log(total.value)
        shift = np.nan_to_num(total.magnitude / np.abs(total.value))
    return Estimate(value=value, magnitude=shift + np.abs(value), roundings=total.roundings + 2)


def _norm(x: Array, axes: tuple[int, ...], keepdims: bool) -> Estimate:
    value = np.sqrt(np.sum(x * x, axis=axes, keepdims=keepdims))
    return Estimate(value=value, magnitude=value, roundings=_count(x, axes) + 2)


def _mean_final(b: Any, x: Any, count: int) -> Any:
    if not b.is_real(x):
        return whole_numbers.quotient(b, x, b.like(count, x))
    return x / b.constant(float(count), b.lanes(x))


def _plus(b: Any, total: Any, value: Any) -> Any:
    return b.sum(total, value)


FLT_MAX = float(np.finfo(np.float32).max)
WIDE = FLOATING | {ElementType.INT32, ElementType.INT64}
"""What sums are there of: ONNX has none of narrower integers."""
FAMILIES = (
    Reduction("reduce_sum", initial=0.0, fold=_plus, reference=_sum, types=WIDE),
    Reduction("reduce_mean", initial=0.0, fold=_plus, final=_mean_final, reference=_mean, types=WIDE),
    Reduction(
        "reduce_prod", initial=1.0, fold=lambda b, t, x: b.product(t, x), reference=_product, types=WIDE
    ),
    Reduction(
        "reduce_l1",
        initial=0.0,
        fold=_plus,
        element=absolute,
        reference=_magnitudes,
        types=WIDE,
    ),
    Reduction(
        "reduce_sum_square",
        initial=0.0,
        fold=_plus,
        element=lambda b, x: b.product(x, x),
        reference=_squares,
        types=WIDE,
    ),
    Reduction(
        "reduce_log_sum",
        initial=0.0,
        fold=_plus,
        final=lambda b, x, n: log(b, x),
        reference=_log_sum,
    ),
    Reduction(
        "reduce_l2",
        initial=0.0,
        fold=lambda b, t, x: t + x,
        element=lambda b, x: x * x,
        final=lambda b, x, n: b.sqrt(x),
        reference=_norm,
    ),
    Reduction(
        "reduce_max",
        initial=-float("inf"),
        fold=larger,
        types=NUMBERS,
        reference=lambda x, axes, keep: exact(np.max(x, axis=axes, keepdims=keep)),
    ),
    Reduction(
        "reduce_min",
        initial=float("inf"),
        fold=smaller,
        types=NUMBERS,
        reference=lambda x, axes, keep: exact(np.min(x, axis=axes, keepdims=keep)),
    ),
)


KINDS = {
    "ReduceSum": "reduce_sum",
    "ReduceMean": "reduce_mean",
    "ReduceProd": "reduce_prod",
    "ReduceL1": "reduce_l1",
    "ReduceL2": "reduce_l2",
    "ReduceSumSquare": "reduce_sum_square",
    "ReduceLogSum": "reduce_log_sum",
    "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min",
}


def _reduce(node: Node) -> Tensor:
    x, named = node.given(0), integers(node, 1, "axes")
    if x.dtype is ElementType.BOOL:  # a byte of 0 or 1, whose largest is whether there is any
        return cast(node, _reduced(node, cast(node, x, ElementType.UINT8), named), ElementType.BOOL)
    return _reduced(node, x, named)


def _reduced(node: Node, x: Tensor, named: tuple[int, ...] | None) -> Tensor:
    """With the reduced axes kept, and then without: where they stay, layouts can change."""
    axes = _axes(node, x, named)
    if not axes:
        return _alone(node, x)
    y = node.call(KINDS[node.op], {"x": x}, {"axes": axes})
    return y if node.attribute("keepdims", 1) else _without(node, y, axes)


def _axes(node: Node, x: Tensor, named: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes that are reduced, sorted: all of them where none is named, if that means all."""
    if not named and node.attribute("noop_with_empty_axes", 0):
        return ()
    return tuple(sorted({axis_of(node, axis, len(x.shape)) for axis in named or range(len(x.shape))}))


def _alone(node: Node, x: Tensor) -> Tensor:
    """Where nothing is reduced, the other steps are still due (ONNX, "ReduceL1", noop_with_empty_axes)."""
    if node.op == "ReduceSumSquare":
        return both(node, "mul", x, x)
    kind = {"ReduceL1": "absolute", "ReduceL2": "absolute", "ReduceLogSum": "log"}.get(node.op)
    return x if kind is None else applied(node, kind, x)


def _without(node: Node, y: Tensor, axes: tuple[int, ...]) -> Tensor:
    return reshaped(node, y, tuple(e for axis, e in enumerate(y.shape) if axis not in axes))


def _log_sum_exp(node: Node) -> Tensor:
    """Ln of the sum of e^(x - m), plus m, the largest, or the largest finite number: nothing overflows."""
    x, named = node.given(0), integers(node, 1, "axes")
    real(node, x)
    axes = _axes(node, x, named)
    if not axes:
        return x
    words = {"axes": axes}
    finite = {"minimum": -FLT_MAX, "maximum": FLT_MAX}
    most = node.call("clip", {"x": node.call("reduce_max", {"x": x}, words)}, finite)
    powers = node.call("exp", {"x": both(node, "sub", x, most)})
    y = both(node, "add", node.call("reduce_log_sum", {"x": powers}, words), most)
    return y if node.attribute("keepdims", 1) else _without(node, y, axes)


ONNX = {**dict.fromkeys(KINDS, _reduce), "ReduceLogSumExp": _log_sum_exp}
