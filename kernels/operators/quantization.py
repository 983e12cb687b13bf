"""ONNX's quantisation: numbers as integers, scaled and shifted, and products of such.

A product of integers of 8 bits is a product in float32, cut so that no sum can reach 2^24: every
partial sum then is an integer that float32 holds, whatever the order, so nothing is rounded.
Longer sums are put together of such in int32, which wraps. Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, has the scheme.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from kernels.elements import numpy_type
from kernels.operators.base import Shape
from kernels.operators.binary import both
from kernels.operators.cast import NUMBERS, cast
from kernels.operators.conv import convolved
from kernels.operators.expand import expanded
from kernels.operators.gemm import multiplied
from kernels.operators.movement import part_of
from kernels.operators.node import Node, axis_of, channels_first, optional, reshaped
from kernels.operators.unary import applied
from kernels.program import ElementType, Tensor

MOST_TERMS = (1 << 24) // 255**2
"""Products of numbers below 256 in magnitude whose sum float32 holds: 258."""
NARROW = (ElementType.INT8, ElementType.UINT8)


def _like(node: Node, parameter: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point as it broadcasts to x: one number, or one along an axis, or for each block."""
    if prod(parameter.shape) == 1:
        return reshaped(node, parameter, (1,))
    axis, block = axis_of(node, node.attribute("axis", 1), len(x.shape)), node.attribute("block_size", 0)
    if len(parameter.shape) == 1:
        return reshaped(node, parameter, (parameter.shape[0], *(1 for _ in x.shape[axis + 1 :])))
    if not block or parameter.shape[axis] * block < x.shape[axis]:
        raise node.refuse(f"scales of shape {list(parameter.shape)} for a tensor of {list(x.shape)}")
    shape = parameter.shape
    apart = reshaped(node, parameter, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    repeated = expanded(node, apart, (*shape[: axis + 1], block, *shape[axis + 1 :]))
    whole = reshaped(node, repeated, (*shape[:axis], shape[axis] * block, *shape[axis + 1 :]))
    return part_of(node, whole, [(0, extent, 1) for extent in x.shape])


def _quantize(node: Node) -> Tensor:
    x, scale, zero = node.given(0), node.given(1), optional(node, 2)
    wanted = zero.dtype if zero is not None else NUMBERS.get(node.attribute("output_dtype", 2))
    if wanted not in NARROW:
        raise node.refuse(f"to {wanted or node.attribute('output_dtype')}; there are int8 and uint8")
    ratio = both(node, "div", cast(node, x, scale.dtype), _like(node, scale, x))
    shift = None if zero is None else _like(node, zero, x)
    return _saturated(node, applied(node, "round", ratio), shift, wanted)


def _saturated(node: Node, x: Tensor, zero: Tensor | None, wanted: ElementType) -> Tensor:
    """Whole numbers in floating point, shifted by the zero point, as the nearest ones that there are."""
    x = cast(node, x, ElementType.FLOAT32)
    if zero is not None:
        x = both(node, "add", x, cast(node, zero, ElementType.FLOAT32))
    ends = np.iinfo(numpy_type(wanted))
    words = {"minimum": float(ends.min), "maximum": float(ends.max)}
    return cast(node, applied(node, "clip", x, words), wanted)


def _dequantize(node: Node) -> Tensor:
    """(x - zero point) scale: the difference in int32, of more bits than its parts."""
    x, scale, zero = node.given(0), node.given(1), optional(node, 2)
    x32 = cast(node, x, ElementType.INT32)
    if zero is not None:
        x32 = both(node, "sub", x32, cast(node, _like(node, zero, x), ElementType.INT32))
    y = both(node, "mul", cast(node, x32, ElementType.FLOAT32), _float(node, _like(node, scale, x)))
    return cast(node, y, NUMBERS.get(node.attribute("output_dtype", 0), scale.dtype))


def _float(node: Node, x: Tensor) -> Tensor:
    return cast(node, x, ElementType.FLOAT32)


def _centred(node: Node, x: Tensor, zero: Tensor | None) -> Tensor:
    """X - zero point in float32, which holds both; known where both are."""
    if x.dtype not in NARROW:
        raise node.refuse(f"'{x.name}' is of type {x.dtype}; there are products of int8 and uint8")
    value = node.constant_value(x)
    shift = np.zeros(1) if zero is None else node.constant_value(zero)
    if value is not None and shift is not None:
        return node.constant(value.astype(np.float32) - shift.astype(np.float32))
    return _float(node, x) if zero is None else both(node, "sub", _float(node, x), _float(node, zero))


def _columns(node: Node, parameter: Tensor | None, rank: int) -> Tensor | None:
    """A number for each row of a matrix, where there is more than one, beside its rows."""
    if parameter is None or prod(parameter.shape) == 1 or len(parameter.shape) == rank:
        return parameter if parameter is None or parameter.shape else reshaped(node, parameter, (1,))
    return reshaped(node, parameter, (*parameter.shape, 1))


def _filters(node: Node, parameter: Tensor | None, rank: int) -> Tensor | None:
    """A number for each filter, as it broadcasts to weights, or to a result with channels first."""
    if parameter is None or prod(parameter.shape) == 1:
        return None if parameter is None else reshaped(node, parameter, (1,))
    return reshaped(node, parameter, (*parameter.shape, *(1 for _ in range(rank - 1))))


def _product(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The product of whole numbers below 256 in int32, in parts that are exact in float32."""
    terms = a.shape[-1] if a.shape else 0
    total: Tensor | None = None
    for first in range(0, terms, MOST_TERMS):
        span = (first, min(first + MOST_TERMS, terms), 1)
        rows = b.shape[-2:-1]
        left = part_of(node, a, [*((0, e, 1) for e in a.shape[:-1]), span])
        ends = [(0, e, 1) for e in b.shape]
        ends[-2 if rows else -1] = span
        part = cast(node, multiplied(node, left, part_of(node, b, ends)), ElementType.INT32)
        total = part if total is None else both(node, "add", total, part)
    if total is None:
        raise node.refuse("a product of nothing")
    return total


def _convolution(node: Node, x: Tensor, w: Tensor) -> Tensor:
    """The convolution of whole numbers below 256 in int32, channels first."""
    channels, taps = w.shape[1], prod(w.shape[2:])
    most = MOST_TERMS // taps
    groups = node.attribute("group", 1)
    if not most or (channels > most and groups > 1):
        raise node.refuse(
            f"{channels} channels of {taps} taps in {groups} groups: float32 does not hold their sums"
        )
    total: Tensor | None = None
    for first in range(0, channels, most):
        span = (first, min(first + most, channels), 1)
        image, weights = x, w
        if channels > most:
            image = part_of(node, x, _along_channels(x.shape, span))
            weights = part_of(node, w, _along_channels(w.shape, span))
        part = cast(node, convolved(node, image, weights, exact=True), ElementType.INT32)
        total = part if total is None else both(node, "add", total, part)
    if total is None:
        raise node.refuse("a convolution of no channels")
    return channels_first(node, total)


def _along_channels(shape: Shape, span: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return [(0, shape[0], 1), span, *((0, extent, 1) for extent in shape[2:])]


def _matmul_integer(node: Node) -> Tensor:
    a, b = node.given(0), node.given(1)
    left = _centred(node, a, _columns(node, optional(node, 2), len(a.shape)))
    return _product(node, left, _centred(node, b, optional(node, 3)))


def _conv_integer(node: Node) -> Tensor:
    x, w = node.given(0), node.given(1)
    image = _centred(node, x, optional(node, 2))
    return _convolution(node, image, _centred(node, w, _filters(node, optional(node, 3), len(w.shape))))


def _qlinear_matmul(node: Node) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.given(number) for number in range(8))
    left = _centred(node, a, _columns(node, a_zero, len(a.shape)))
    total = _product(node, left, _centred(node, b, b_zero))
    rows = _columns(node, a_scale, len(a.shape)) or a_scale
    return _requantized(node, total, (rows, b_scale), (y_scale, y_zero))


def _requantized(
    node: Node, total: Tensor, scales: tuple[Tensor, Tensor], result: tuple[Tensor, Tensor]
) -> Tensor:
    """Sums in int32, scaled, rounded and shifted as the result is."""
    scale, zero = (reshaped(node, each, each.shape or (1,)) for each in result)
    first, second = (_float(node, reshaped(node, each, each.shape or (1,))) for each in scales)
    factor = both(node, "div", both(node, "mul", first, second), _float(node, scale))
    y = both(node, "mul", _float(node, total), factor)
    return _saturated(node, applied(node, "round", y), zero, zero.dtype)


def _qlinear_conv(node: Node) -> Tensor:
    given: list[Any] = [node.given(number) for number in range(8)]
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = given
    rank = len(w.shape)
    weights = _centred(node, w, _filters(node, w_zero, rank))
    total = _convolution(node, _centred(node, x, reshaped(node, x_zero, (1,))), weights)
    bias = _filters(node, optional(node, 8), rank - 1)
    if bias is not None:
        total = both(node, "add", total, bias)
    return _requantized(
        node, total, (x_scale, _filters(node, w_scale, rank - 1) or w_scale), (y_scale, y_zero)
    )


ONNX = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearMatMul": _qlinear_matmul,
    "QLinearConv": _qlinear_conv,
}
