"""Element-wise functions of one tensor, each with the error that it states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators import elementary, trigonometry
from kernels.operators.base import FLOATING, NUMBERS, Array, Definition, Entry, Estimate, fused_as
from kernels.operators.binary import both
from kernels.operators.elementwise import Map, OneInput
from kernels.operators.node import Node, optional, real, reshaped, scalar
from kernels.program import ElementType, Tensor

_ERF = np.vectorize(math.erf, otypes=[np.float64])


class Function(Map):
    """y = f(x) within `ulps` units in the last place, plus `relative` u |x|.

    `lipschitz` bounds |f'|: it carries the error of an input that is not exact.
    """

    special_inputs = True

    def __init__(
        self,
        kind: str,
        emit: Callable[[Any, Any], Any],
        exact: Callable[[Array], Array],
        *,
        ulps: float,
        relative: float = 0.0,
        lipschitz: float | None = None,
        scaled: bool = False,
        heavy: bool = True,
        types: frozenset[ElementType] = FLOATING,
    ) -> None:
        """A function that is fused by its own name if its slope is bounded.

        `scaled`: its last step multiplies by x what is e^x, and may be subnormal, where x is below -87.
        """
        self.heavy, self.types = heavy, types
        self.kind = kind
        self.words = {kind: {}} if lipschitz is not None else {}
        self._emit, self._exact = emit, exact
        self._ulps, self._relative, self._lipschitz = ulps, relative, lipschitz or 0.0
        self._scaled = scaled

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """The function on one vector."""
        return self._emit(b, b.let(value))

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """The function's own error, and its input's as far as it passes it on."""
        with np.errstate(all="ignore"):
            value = self._exact(estimate.value)
            size = np.nan_to_num(np.abs(estimate.value), posinf=0.0)
        own = self._ulps * ulp(value) + self._relative * 2.0**-24 * size + self._scaled * 2.0**-148 * size
        return Estimate(
            value=value,
            magnitude=self._lipschitz * estimate.magnitude,
            roundings=max(1, estimate.roundings),
            extra=self._lipschitz * estimate.extra + own,
            underflows=self._lipschitz * estimate.underflows + self._scaled * np.minimum(size, 128.0),
        )


def ulp(value: Array) -> Array:
    """The unit in the last place of float32 at each value; 2^-149 below the normal range."""
    _, exponent = np.frexp(np.nan_to_num(value, posinf=0.0, neginf=0.0))
    unit: Array = np.ldexp(1.0, np.maximum(exponent - 24, -149))
    return unit


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def _gelu(b: Any, x: Any) -> Any:
    lanes = b.lanes(x)
    bell = elementary.erf(b, b.let(x * b.constant(math.sqrt(0.5), lanes)))
    return b.let(x * b.constant(0.5, lanes)) * (b.constant(1.0, lanes) + bell)


def _gelu_tanh(b: Any, x: Any) -> Any:
    lanes = b.lanes(x)
    cubic = b.fma(b.let(x * x), b.let(x * b.constant(0.044715, lanes)), x)
    inner = b.let(cubic * b.constant(math.sqrt(2.0 / math.pi), lanes))
    return b.let(x * b.constant(0.5, lanes)) * (b.constant(1.0, lanes) + elementary.tanh(b, inner))


def _gelu_tanh_exact(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _mish(b: Any, x: Any) -> Any:
    """X tanh(ln(1 + n)) with n = e^x: the quotient n (n + 2) / (n (n + 2) + 2), which is 1 from 20 on."""
    lanes = b.lanes(x)
    two, most = b.constant(2.0, lanes), b.constant(20.0, lanes)
    n = elementary.exp(b, b.let(b.select(x > most, most, x)))
    product = b.let(n * b.let(n + two))
    return x * b.let(product / b.let(product + two))


def _mish_exact(x: Array) -> Array:
    return np.where(np.isneginf(x), np.nan, x * np.tanh(np.logaddexp(0.0, x)))


def _hard_sigmoid(b: Any, x: Any) -> Any:
    lanes = b.lanes(x)
    return elementary.clamped(
        b, b.let(b.fma(x, b.constant(1.0 / 6.0, lanes), b.constant(0.5, lanes))), 0.0, 1.0
    )


def _relu(b: Any, x: Any) -> Any:
    zero = b.like(0, x)
    return b.select(
        x < zero, zero, x
    )  # this way round keeps NaN, and is one instruction on most processors


def _negative(b: Any, x: Any) -> Any:
    if not b.is_real(x):
        return b.difference(b.like(0, x), x)
    return b.as_float(b.as_int(x) ^ b.integer(-0x80000000, b.lanes(x)))


def _sign(b: Any, x: Any) -> Any:
    """NaN and either zero are their own signs, as they are neither above zero nor below."""
    zero, one = b.like(0, x), b.like(1, x)
    if not b.is_signed(x) and not b.is_real(x):
        return b.select(x > zero, one, zero)
    return b.select(x > zero, one, b.select(x < zero, b.like(-1, x), x))


def _softsign(b: Any, x: Any) -> Any:
    return x / (b.constant(1.0, b.lanes(x)) + elementary.absolute(b, x))


class ClipAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interval that results are confined to."""

    minimum: float
    maximum: float


class ClipEntry(Entry, frozen=True, kw_only=True):
    """A clip in a listing."""

    inputs: OneInput
    attributes: ClipAttributes


class Clip(Map):
    """y = min(max(x, minimum), maximum), with NaN kept; fused as `relu6` for [0, 6]."""

    kind = "clip"
    entry = ClipEntry
    attributes = ClipAttributes
    types = FLOATING
    words = fused_as(relu6={"minimum": 0.0, "maximum": 6.0})

    def define(self, entry: ClipEntry) -> Definition:
        """As for every element-wise operator; the interval must not be empty."""
        if not entry.attributes.minimum <= entry.attributes.maximum:
            raise InputError(
                "attributes.minimum must not exceed attributes.maximum", key="attributes.minimum"
            )
        return super().define(entry)

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """Two comparisons."""
        return elementary.clamped(b, b.let(value), attributes.minimum, attributes.maximum)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """The interval's ends are rounded to float32 as in the kernel; distances do not grow."""
        low, high = np.float32(attributes.minimum), np.float32(attributes.maximum)
        value = np.clip(estimate.value, np.float64(low), np.float64(high))
        return msgspec.structs.replace(estimate, value=value)


FAMILIES = (
    Clip(),
    Function(
        "relu",
        _relu,
        lambda x: np.where(x < 0, x.dtype.type(0), x),
        ulps=0,
        lipschitz=1.0,
        heavy=False,
        types=NUMBERS,
    ),
    Function("exp", elementary.exp, np.exp, ulps=2),
    Function("log", elementary.log, np.log, ulps=2),
    Function("tanh", elementary.tanh, np.tanh, ulps=2, lipschitz=1.0),
    Function("erf", elementary.erf, _ERF, ulps=2, lipschitz=1.13),
    Function("sigmoid", elementary.sigmoid, _sigmoid, ulps=2, lipschitz=0.25),
    Function(
        "gelu",
        _gelu,
        lambda x: 0.5 * x * (1.0 + _ERF(x * math.sqrt(0.5))),
        ulps=2,
        relative=4,
        lipschitz=1.13,
    ),
    Function("gelu_tanh", _gelu_tanh, _gelu_tanh_exact, ulps=2, relative=6, lipschitz=1.13),
    Function(
        "silu",
        lambda b, x: x * elementary.sigmoid(b, x),
        lambda x: np.where(np.isneginf(x), np.nan, x * _sigmoid(x)),
        ulps=4,
        lipschitz=1.1,
        scaled=True,
    ),
    Function("softplus", elementary.softplus, lambda x: np.logaddexp(0.0, x), ulps=3, lipschitz=1.0),
    Function("mish", _mish, _mish_exact, ulps=7, lipschitz=1.1, scaled=True),
    Function(
        "hard_sigmoid",
        _hard_sigmoid,
        lambda x: np.clip(x / 6 + 0.5, 0.0, 1.0),
        ulps=2,
        relative=1,
        lipschitz=0.17,
    ),
    Function(
        "hard_swish",
        lambda b, x: x * _hard_sigmoid(b, x),
        lambda x: np.where(np.isneginf(x), np.nan, x * np.clip(x / 6 + 0.5, 0.0, 1.0)),
        ulps=2,
        relative=4,
        lipschitz=1.5,
    ),
    Function("softsign", _softsign, lambda x: x / (1.0 + np.abs(x)), ulps=2, lipschitz=1.0),
    Function("sqrt", lambda b, x: b.sqrt(x), np.sqrt, ulps=0.5),
    Function("negative", _negative, np.negative, ulps=0, lipschitz=1.0, heavy=False, types=NUMBERS),
    Function("absolute", elementary.absolute, np.abs, ulps=0, lipschitz=1.0, heavy=False, types=NUMBERS),
    Function("sign", _sign, lambda x: np.where(x == 0, x, np.sign(x)), ulps=0, heavy=False, types=NUMBERS),
    Function("floor", elementary.floor, np.floor, ulps=0),
    Function("ceil", elementary.ceil, np.ceil, ulps=0),
    Function("round", elementary.round_even, np.rint, ulps=0),
    Function("sin", trigonometry.sin, np.sin, ulps=1, lipschitz=1.0),
    Function("cos", trigonometry.cos, np.cos, ulps=1, lipschitz=1.0),
    Function("tan", trigonometry.tan, np.tan, ulps=3),
    Function("asin", trigonometry.asin, np.arcsin, ulps=3),
    Function("acos", trigonometry.acos, np.arccos, ulps=2),
    Function("atan", trigonometry.atan, np.arctan, ulps=2, lipschitz=1.0),
    Function("sinh", trigonometry.sinh, np.sinh, ulps=2.5),
    Function("cosh", trigonometry.cosh, np.cosh, ulps=2.5),
    Function("asinh", trigonometry.asinh, np.arcsinh, ulps=3, lipschitz=1.0),
    Function("acosh", trigonometry.acosh, np.arccosh, ulps=3),
    Function("atanh", trigonometry.atanh, np.arctanh, ulps=2),
)


def applied(node: Node, kind: str, x: Tensor, attributes: dict[str, Any] | None = None) -> Tensor:
    """An element-wise function of x, which may be a scalar."""
    y = node.call(kind, {"x": reshaped(node, x, x.shape or (1,))}, attributes)
    return reshaped(node, y, x.shape)


def _simple(kind: str) -> Any:
    """What takes a node of one input, without attributes, to a kind of ours."""
    return lambda node: applied(node, kind, node.given(0))


def _node_clip(node: Node) -> Tensor:
    """A bound that is not there is infinite; only both together are our clip."""
    if not node.given(0).dtype.floating or node.is_unknown(1) or node.is_unknown(2):
        return _between(node)
    low, high = scalar(node, 1, "min", -np.inf), scalar(node, 2, "max", np.inf)
    x = node.given(0)
    if low == 0.0 and high == np.inf:
        return applied(node, "relu", x)
    low = min(low, high)  # ONNX: bounds in the wrong order leave the upper one
    if np.isfinite(low) and np.isfinite(high):
        return applied(node, "clip", x, {"minimum": low, "maximum": high})
    real(node, x)
    y = reshaped(node, x, x.shape or (1,))
    for kind, bound, none in (("maximum", low, -np.inf), ("minimum", high, np.inf)):
        if not np.isnan(bound) and bound != none:
            y = node.call(kind, {"a": y, "b": node.constant(np.array([bound], np.float32))})
    return reshaped(node, y, x.shape)


def _between(node: Node) -> Tensor:
    """Bounds that are tensors: of integers, or known when the library runs."""
    y = node.given(0)
    for number, kind in ((1, "maximum"), (2, "minimum")):
        bound = optional(node, number)
        if bound is not None:
            y = both(node, kind, y, bound)
    return y


def _node_hard_sigmoid(node: Node) -> Tensor:
    """By our own function for a slope of 1/6; ONNX's default is 0.2."""
    alpha, beta = np.float32(node.attribute("alpha", 0.2)), np.float32(node.attribute("beta", 0.5))
    x = node.given(0)
    if alpha == np.float32(1 / 6) and beta == np.float32(0.5):
        return applied(node, "hard_sigmoid", x)
    real(node, x)
    y = node.call("mul", {"a": reshaped(node, x, x.shape or (1,)), "b": node.constant(np.array([alpha]))})
    y = node.call("add", {"a": y, "b": node.constant(np.array([beta]))})
    return reshaped(node, node.call("clip", {"x": y}, {"minimum": 0.0, "maximum": 1.0}), x.shape)


def _node_gelu(node: Node) -> Tensor:
    kinds = {"none": "gelu", "tanh": "gelu_tanh"}
    return applied(node, kinds[node.attribute("approximate", "none")], node.given(0))


def _node_reciprocal(node: Node) -> Tensor:
    x = node.given(0)
    real(node, x)
    one = node.constant(np.ones(1, np.float32))
    return reshaped(node, node.call("div", {"a": one, "b": reshaped(node, x, x.shape or (1,))}), x.shape)


ONNX = {
    "Relu": _simple("relu"),
    "Exp": _simple("exp"),
    "Log": _simple("log"),
    "Tanh": _simple("tanh"),
    "Erf": _simple("erf"),
    "Sigmoid": _simple("sigmoid"),
    "Softsign": _simple("softsign"),
    "Softplus": _simple("softplus"),
    "Mish": _simple("mish"),
    "Sqrt": _simple("sqrt"),
    "Neg": _simple("negative"),
    "Abs": _simple("absolute"),
    "Sign": _simple("sign"),
    "Floor": _simple("floor"),
    "Ceil": _simple("ceil"),
    "Round": _simple("round"),
    "HardSwish": _simple("hard_swish"),
    "Sin": _simple("sin"),
    "Cos": _simple("cos"),
    "Tan": _simple("tan"),
    "Asin": _simple("asin"),
    "Acos": _simple("acos"),
    "Atan": _simple("atan"),
    "Sinh": _simple("sinh"),
    "Cosh": _simple("cosh"),
    "Asinh": _simple("asinh"),
    "Acosh": _simple("acosh"),
    "Atanh": _simple("atanh"),
    "HardSigmoid": _node_hard_sigmoid,
    "Clip": _node_clip,
    "Gelu": _node_gelu,
    "Reciprocal": _node_reciprocal,
}
