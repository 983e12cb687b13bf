"""Element-wise arithmetic of two tensors, with broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.elements import numpy_type
from kernels.operators import whole_numbers
from kernels.operators.base import NUMBERS, Array, Estimate, fused_as, widened
from kernels.operators.cast import cast
from kernels.operators.elementary import absolute, exp, log, round_even, with_sign_of
from kernels.operators.elementwise import Map, PairEntry
from kernels.operators.node import Node, real, reshaped
from kernels.plan import Operand
from kernels.program import ElementType, Tensor


class Add(Map):
    """y = a + b; fused as `bias` (a vector along the last axis) or `add` (a residual)."""

    kind = "add"
    entry = PairEntry
    words = fused_as(bias={}, add={})
    by_channel = "bias"
    types = NUMBERS

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """One addition."""
        return b.sum(value, operand)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """One more rounding, and the operand's magnitude."""
        addend = widened(operand)
        return Estimate(
            value=estimate.value + addend,
            magnitude=np.maximum(estimate.magnitude, np.abs(estimate.value)) + np.abs(addend),
            roundings=estimate.roundings + 1,
            extra=estimate.extra,
            underflows=estimate.underflows,
        )


class _Alone(Map):
    """An operator of two inputs that is not fused."""

    entry = PairEntry
    words = fused_as()
    types = NUMBERS

    def exact(self, a: Array, b: Array) -> Array:
        """The function in float64."""
        raise NotImplementedError

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """One correctly rounded operation on exact inputs."""
        with np.errstate(all="ignore"):
            value = self.exact(estimate.value, widened(operand))
        return Estimate(value=value, magnitude=np.abs(value), roundings=1)


class Sub(_Alone):
    """y = a - b."""

    kind = "sub"

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """One subtraction."""
        return b.difference(value, operand)

    def exact(self, a: Array, b: Array) -> Array:
        """The difference."""
        return a - b


class Mul(_Alone):
    """y = a b."""

    kind = "mul"

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """One product."""
        return b.product(value, operand)

    def exact(self, a: Array, b: Array) -> Array:
        """The product."""
        return a * b


class Div(_Alone):
    """y = a / b, as IEEE 754 says: infinities for division by zero.

    Integers are rounded towards zero, as C's are; those divided by zero give 0.
    """

    kind = "div"

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """One quotient."""
        return value / operand if b.is_real(value) else whole_numbers.quotient(b, value, operand)

    def exact(self, a: Array, b: Array) -> Array:
        """The quotient."""
        return a / b if a.dtype.kind == "f" else whole_numbers.exact_quotient(a, b)


class Maximum(_Alone):
    """y = max(a, b); NaN if either is."""

    kind = "maximum"
    special_inputs = True

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A comparison keeps the first operand's NaN, another one the second's."""
        larger = b.let(b.select(operand > value, operand, value))
        return b.select(b.differ(operand, operand), operand, larger)

    def exact(self, a: Array, b: Array) -> Array:
        """The larger of the two; the first of two zeros."""
        return np.where((b > a) | np.isnan(b), b, a)


class Minimum(_Alone):
    """y = min(a, b); NaN if either is."""

    kind = "minimum"
    special_inputs = True

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A comparison keeps the first operand's NaN, another one the second's."""
        smaller = b.let(b.select(operand < value, operand, value))
        return b.select(b.differ(operand, operand), operand, smaller)

    def exact(self, a: Array, b: Array) -> Array:
        """The smaller of the two; the first of two zeros."""
        return np.where((b < a) | np.isnan(b), b, a)


class Pow(_Alone):
    """y = a^b by exp(b ln |a|), and what IEEE 754-2019, 9.2.1, says of signs and special values.

    The relative error is at most u (6 + 6 |b ln |a||), for each rounding of b ln |a| is
    multiplied by the exponential's growth. Powers of integers are products, which wrap; those to
    numbers below zero are cut towards zero.
    """

    kind = "pow"
    heavy = True

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A number below zero has powers to integers alone, and odd ones keep its sign."""
        if not b.is_real(value):
            return whole_numbers.power(b, value, operand)
        lanes = b.lanes(value)
        one, zero = b.constant(1.0, lanes), b.constant(0.0, lanes)
        size = absolute(b, value)
        power = exp(b, b.let(operand * log(b, size)))
        power = b.let(b.select(size == one, one, power))
        half = b.let(operand * b.constant(0.5, lanes))
        signed = with_sign_of(b, power, value)
        whole = b.let(b.select(round_even(b, half) == half, power, signed))
        none = b.constant(float("nan"), lanes)
        finite = b.let(b.select(size < b.constant(float("inf"), lanes), none, power))
        broken = b.let(b.select(value < zero, finite, power))
        power = b.let(b.select(round_even(b, operand) == operand, whole, broken))
        power = b.let(b.select(value == one, one, power))
        return b.select(operand == zero, one, power)

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Whole exponents among the others, odd ones and even ones."""
        array = super().draw(generator, operand)
        if operand.dtype.floating and operand.name == "b":
            flat = array.reshape(-1)
            flat[2::3] = np.round(8 * generator.uniform(-1, 1, flat[2::3].size))
        return array

    def exact(self, a: Array, b: Array) -> Array:
        """The power, as C's pow says; of integers it wraps."""
        if a.dtype.kind != "f":
            return whole_numbers.exact_power(a, b)
        return np.asarray(np.power(a, b))

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """The error grows with the logarithm of the result."""
        if estimate.value.dtype.kind != "f":
            return super().apply_estimate(attributes, estimate, operand)
        exponent = np.asarray(operand, dtype=np.float64)
        with np.errstate(all="ignore"):
            value = self.exact(estimate.value, exponent)
            growth = np.nan_to_num(np.abs(exponent * np.log(np.abs(estimate.value))), posinf=0.0)
        return Estimate(value=value, magnitude=np.abs(value) * (6 + 6 * growth), roundings=1)


FAMILIES = (Add(), Sub(), Mul(), Div(), Maximum(), Minimum(), Pow())


def both(node: Node, kind: str, a: Tensor, b: Tensor, attributes: dict[str, Any] | None = None) -> Tensor:
    """An operator of two tensors, which may be scalars."""
    pair = {"a": reshaped(node, a, a.shape or (1,)), "b": reshaped(node, b, b.shape or (1,))}
    y = node.call(kind, pair, attributes)
    return y if a.shape or b.shape else reshaped(node, y, ())


def _pair(kind: str) -> Any:
    """What takes a node of two inputs to a kind of ours."""
    return lambda node: both(node, kind, node.given(0), node.given(1))


def _several(kind: str) -> Any:
    """What takes a node of one input or more to a chain."""

    def fold(node: Node) -> Tensor:
        total = node.given(0)
        for number in range(1, len(node.inputs)):
            total = both(node, kind, total, node.given(number))
        return total

    return fold


def _mean(node: Node) -> Tensor:
    """The sum over how many there are."""
    real(node, node.given(0))
    total = _several("add")(node)
    return both(node, "div", total, node.constant(np.array([float(len(node.inputs))])))


def _pow(node: Node) -> Tensor:
    """Squares and roots without logarithms; powers of integers as products."""
    x, exponent = node.given(0), node.value(1)
    if exponent is not None and exponent.size == 1 and not exponent.shape[len(x.shape) :]:
        power = float(exponent.ravel()[0])
        if power == 1.0:
            return x
        if power == 2.0:  # noqa: PLR2004 - a square
            return both(node, "mul", x, x)
        if x.dtype.floating and power == 0.5:  # noqa: PLR2004 - a root
            return reshaped(node, node.call("sqrt", {"x": reshaped(node, x, x.shape or (1,))}), x.shape)
    if not x.dtype.floating:
        return _whole_power(node, x, exponent)
    if exponent is not None:
        return both(node, "pow", x, node.constant(exponent.astype(np.float32)))
    return both(node, "pow", x, cast(node, node.given(1), x.dtype))


def _whole_power(node: Node, x: Tensor, known: Array | None) -> Tensor:
    """By products; to a number with a fraction in floating point, cut to an integer."""
    if known is not None and known.size == 1 and float(known.ravel()[0]) in range(MOST_FACTORS + 1):
        return _product(node, x, int(known.ravel()[0]))
    exponent = node.given(1)
    if not exponent.dtype.floating:
        return both(node, "pow", x, cast(node, exponent, x.dtype))
    exponent = reshaped(node, exponent, exponent.shape or (1,))
    exact = both(node, "pow", x, cast(node, exponent, x.dtype))
    near = cast(node, both(node, "pow", cast(node, x, ElementType.FLOAT32), exponent), x.dtype)
    whole = node.call("equal", {"a": node.call("floor", {"x": exponent}), "b": exponent})
    shape = exact.shape or (1,)
    operands = {"a": reshaped(node, exact, shape), "b": reshaped(node, near, shape)}
    return reshaped(node, node.call("where", {"condition": whole, **operands}), exact.shape)


MOST_FACTORS = 8


def _product(node: Node, x: Tensor, power: int) -> Tensor:
    """X as so many factors; 1 for none."""
    if power == 0:
        return node.constant(np.broadcast_to(np.ones((), numpy_type(x.dtype)), x.shape))
    total = x
    for _ in range(power - 1):
        total = both(node, "mul", total, x)
    return total


ONNX = {
    "Add": _pair("add"),
    "Sub": _pair("sub"),
    "Mul": _pair("mul"),
    "Div": _pair("div"),
    "Pow": _pow,
    "Sum": _several("add"),
    "Mean": _mean,
    "Max": _several("maximum"),
    "Min": _several("minimum"),
}
