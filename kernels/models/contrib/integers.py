"""Nodes that onnxruntime's quantiser makes: operators on integers, with scales and zero points."""

from __future__ import annotations

from math import prod

from onnx import TensorProto

from kernels.models.contrib.body import Body, Function, channels_last, same
from kernels.models.contrib.fused import CONVOLUTION

SOFTMAX_OF_AN_AXIS = 13
"""The opset in which softmax got to know a single axis."""
POOLING = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")


def _zero(f: Body, name: str, number: int = 0) -> str:
    """A zero point, which is zero where it is not given, of the element type of an input."""
    return name or f.number(0, f.kind(number))


def _taken(f: Body, count: int) -> list[str]:
    """The first operands as what they stand for: each a tensor, a scale and a zero point."""
    names = f.inputs(3 * count)
    return [f("DequantizeLinear", *names[at : at + 3]) for at in range(0, 3 * count, 3)]


def _put(f: Body, y: str, scale: int) -> str:
    """The result as integers again, by the scale and zero point of inputs."""
    return f("QuantizeLinear", y, f.given[scale], _zero(f, f.inputs(scale + 2)[scale + 1]))


def _qlinear(op: str, count: int = 1, *attributes: str) -> Function:
    """An operator of ONNX's on what integers stand for."""

    def write(f: Body) -> str:
        return _put(f, f(op, *_taken(f, count), **f.passed(*attributes)), 3 * count)

    return write


def _qlinear_mul(f: Body) -> str:
    """The product of the integers is exact; it is rounded once."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = f.inputs(8)
    one = f.number(1.0)
    y = f("Mul", *(f("DequantizeLinear", x, one, z) for x, z in ((a, a_zero), (b, b_zero))))
    factor = f("Div", f("Mul", a_scale, b_scale), scale)
    return f("QuantizeLinear", f("Mul", y, factor), one, _zero(f, zero))


def _qlinear_softmax(f: Body) -> str:
    """Before opset 13 over all axes from one on."""
    (x,), shape = _taken(f, 1), f.shape(0)
    if f.attribute("opset") >= SOFTMAX_OF_AN_AXIS:
        return _put(f, f("Softmax", x, **f.passed("axis")), 3)
    axis = f.attribute("axis", -1) % len(shape)
    flat = f("Reshape", x, f.whole(prod(shape[:axis]), prod(shape[axis:])))
    return _put(f, f("Reshape", f("Softmax", flat), f.whole(*shape)), 3)


def _qlinear_concat(f: Body) -> str:
    scale, zero, *parts = f.given
    taken = [f("DequantizeLinear", *parts[at : at + 3]) for at in range(0, len(parts), 3)]
    return f("QuantizeLinear", f("Concat", *taken, axis=f.attribute("axis")), scale, zero)


def _qlinear_where(f: Body) -> str:
    condition, x, x_scale, x_zero, y, y_scale, y_zero, scale, zero = f.inputs(9)
    sides = (f("DequantizeLinear", *each) for each in ((x, x_scale, x_zero), (y, y_scale, y_zero)))
    return f("QuantizeLinear", f("Where", condition, *sides), scale, zero)


def _qgemm(f: Body) -> str:
    a, a_scale, a_zero, b, b_scale, b_zero, c, scale, zero = f.inputs(9)
    if f.attribute("transA", 0):
        a = f.transposed(a, 1, 0)
    if f.attribute("transB", 0):
        b = f.transposed(b, 1, 0)
    total = f.sum(f("MatMulInteger", a, b, a_zero, b_zero), c)
    factor = f("Mul", a_scale, b_scale)
    if f.attribute("alpha", 1.0) != 1.0:
        factor = f("Mul", factor, f.number(f.attribute("alpha")))
    y = f("Cast", total, to=TensorProto.FLOAT)
    if not scale:
        return f("Mul", y, factor)
    return f("QuantizeLinear", f("Mul", y, f("Div", factor, scale)), f.number(1.0), zero)


def _dynamic_quantize_matmul(f: Body) -> str:
    a, b, scale, zero, bias = f.inputs(5)
    whole, step, least = f.several(3, "DynamicQuantizeLinear", a)
    return f.sum(f.scaled(f("MatMulInteger", whole, b, least, zero), step, scale), bias)


def _matmul_integer_to_float(f: Body) -> str:
    a, b, a_scale, b_scale, a_zero, b_zero, bias = f.inputs(7)
    return f.sum(f.scaled(f("MatMulInteger", a, b, a_zero, b_zero), a_scale, b_scale), bias)


def _by_layout(write: Function) -> Function:
    """Of images with channels first, or last where the node says so."""
    last = channels_last(write, 0)
    return lambda f: (last if f.attribute("channels_last", 0) else write)(f)


FUNCTIONS: dict[str, Function] = {
    "DequantizeLinear": same("DequantizeLinear", "axis"),
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "MatMulIntegerToFloat": _matmul_integer_to_float,
    "NhwcMaxPool": channels_last(same("MaxPool", *POOLING), 0),
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear("Add", 2),
    "QLinearAveragePool": _by_layout(_qlinear("AveragePool", 1, *POOLING)),
    "QLinearConcat": _qlinear_concat,
    "QLinearConv": _by_layout(same("QLinearConv", *CONVOLUTION)),
    "QLinearGlobalAveragePool": _by_layout(_qlinear("GlobalAveragePool")),
    "QLinearLeakyRelu": _qlinear("LeakyRelu", 1, "alpha"),
    "QLinearMul": _qlinear_mul,
    "QLinearSigmoid": _qlinear("Sigmoid"),
    "QLinearSoftmax": _qlinear_softmax,
    "QLinearWhere": _qlinear_where,
    "QuantizeLinear": same("QuantizeLinear", "axis"),
}
"""By the operator's type."""
