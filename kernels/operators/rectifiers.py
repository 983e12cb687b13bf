"""Functions that bend at zero: a line above it, and below it another one or an exponential."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from kernels.operators import elementary
from kernels.operators.base import FLOATING, Array, Entry, Estimate, fused_as
from kernels.operators.binary import both
from kernels.operators.elementwise import Map, OneInput, PairEntry
from kernels.operators.node import Node, real
from kernels.operators.unary import applied, ulp
from kernels.program import Tensor

SELU_ALPHA = 1.67326319217681884765625
SELU_GAMMA = 1.05070102214813232421875
"""ONNX's defaults, "Selu": float32's nearest to those of Klambauer et al., "Self-Normalizing Neural
Networks", 2017."""


class SlopeAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The slope below zero."""

    alpha: float = 0.01


class SlopeEntry(Entry, frozen=True, kw_only=True):
    """A leaky ReLU in a listing."""

    inputs: OneInput
    attributes: SlopeAttributes = SlopeAttributes()


class LeakyRelu(Map):
    """y = x, or alpha x below zero."""

    kind = "leaky_relu"
    entry = SlopeEntry
    attributes = SlopeAttributes
    types = FLOATING
    words = fused_as(leaky_relu={"alpha": 0.01})

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A product and a comparison."""
        value = b.let(value)
        return _bent(b, value, b.constant(attributes.alpha, b.lanes(value)))

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """One rounding more."""
        return _bent_estimate(estimate, np.float64(np.float32(attributes.alpha)))


class PRelu(Map):
    """y = a, or b a below zero: b is a tensor of slopes, one for each channel or element."""

    kind = "prelu"
    entry = PairEntry
    types = FLOATING
    words = fused_as()
    by_channel = "slope"

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A product and a comparison."""
        return _bent(b, b.let(value), operand)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """One rounding more."""
        return _bent_estimate(estimate, np.asarray(operand, np.float64))


def _bent(b: Any, x: Any, slope: Any) -> Any:
    return b.select(x < b.constant(0.0, b.lanes(x)), x * slope, x)


def _bent_estimate(estimate: Estimate, slope: Any) -> Estimate:
    """No slope is steeper than 1 or |slope|, so that errors grow by no more, and there is one rounding."""
    growth = np.maximum(1.0, np.where(np.isfinite(slope), np.abs(slope), 1.0))
    value = np.where(estimate.value < 0, estimate.value * slope, estimate.value)
    return Estimate(
        value=value,
        magnitude=np.maximum(estimate.magnitude * growth, np.abs(value)),
        roundings=estimate.roundings + 1,
        extra=estimate.extra * growth,
        underflows=estimate.underflows * growth,
    )


class EluAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How deep it goes below zero, what all is multiplied by, and how wide the bend is."""

    alpha: float = 1.0
    gamma: float = 1.0
    width: float = 1.0


class EluEntry(Entry, frozen=True, kw_only=True):
    """An exponential linear unit in a listing."""

    inputs: OneInput
    attributes: EluAttributes = EluAttributes()


class Elu(Map):
    """y = gamma x, or gamma alpha (e^(x / width) - 1) below zero.

    Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2016; with
    gamma it is also Selu, with alpha = width Celu.
    """

    kind = "elu"
    entry = EluEntry
    attributes = EluAttributes
    types = FLOATING
    heavy = True
    special_inputs = True
    words = fused_as(elu={"alpha": 1.0, "gamma": 1.0, "width": 1.0})

    def apply(self, b: Any, attributes: EluAttributes, value: Any, operand: Any) -> Any:
        """The exponential of numbers below zero alone, and factors where they are not 1."""
        value = b.let(value)
        lanes = b.lanes(value)
        zero = b.constant(0.0, lanes)

        def times(x: Any, factor: float) -> Any:
            return x if factor == 1.0 else b.let(x * b.constant(factor, lanes))

        inner = times(b.let(b.select(value < zero, value, zero)), 1.0 / attributes.width)
        below = times(elementary.expm1(b, inner), attributes.alpha)
        return times(b.let(b.select(value < zero, below, value)), attributes.gamma)

    def apply_estimate(
        self, attributes: EluAttributes, estimate: Estimate, operand: Array | None
    ) -> Estimate:
        """3 units in the last place of the exponential, and what each factor rounds."""
        factors = (attributes.alpha, attributes.gamma, 1.0 / attributes.width)
        alpha, gamma, narrow = (np.float64(np.float32(factor)) for factor in factors)
        x = estimate.value
        with np.errstate(all="ignore"):
            value = gamma * np.where(x < 0, alpha * np.expm1(narrow * x), x)
        steepest = float(abs(gamma) * max(1.0, abs(alpha * narrow)))
        # A rounding of x / width is worth |t / (e^-t - 1)| <= 1 of the result in proportion. What a step
        # flushes to zero is missing up to as many times over as later steps multiply it.
        ulps = 3 + sum(factor != 1.0 for factor in factors)
        return Estimate(
            value=value,
            magnitude=steepest * estimate.magnitude,
            roundings=max(1, estimate.roundings),
            extra=steepest * estimate.extra + ulps * ulp(value),
            underflows=steepest * (estimate.underflows + 1),
        )


class ShrinkAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is within the threshold becomes 0; the rest comes nearer to 0 by the bias."""

    threshold: float = 0.5
    bias: float = 0.0


class ShrinkEntry(Entry, frozen=True, kw_only=True):
    """A shrinkage in a listing."""

    inputs: OneInput
    attributes: ShrinkAttributes = ShrinkAttributes()


class Shrink(Map):
    """y = x + bias below -threshold, x - bias above it, else 0, for NaN too."""

    kind = "shrink"
    entry = ShrinkEntry
    attributes = ShrinkAttributes
    types = FLOATING
    special_inputs = True
    words = fused_as()

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """Two comparisons."""
        value = b.let(value)
        lanes = b.lanes(value)
        bias = b.constant(attributes.bias, lanes)
        high, low = b.constant(attributes.threshold, lanes), b.constant(-attributes.threshold, lanes)
        below = b.select(value < low, value + bias, b.constant(0.0, lanes))
        return b.select(value > high, value - bias, b.let(below))

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """One rounding, on an exact input."""
        x = estimate.value
        bias, threshold = (np.float64(np.float32(v)) for v in (attributes.bias, attributes.threshold))
        value = np.where(x < -threshold, x + bias, np.where(x > threshold, x - bias, 0.0))
        return Estimate(value=value, magnitude=np.abs(value), roundings=1)


FAMILIES = (LeakyRelu(), PRelu(), Elu(), Shrink())


def _leaky_relu(node: Node) -> Tensor:
    return applied(node, "leaky_relu", node.given(0), {"alpha": node.attribute("alpha", 0.01)})


def _prelu(node: Node) -> Tensor:
    x, slope = node.given(0), node.given(1)
    real(node, x)
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise node.refuse(f"slopes of shape {list(slope.shape)} for a tensor of shape {list(x.shape)}")
    return both(node, "prelu", x, slope)


def _elu(node: Node) -> Tensor:
    return applied(node, "elu", node.given(0), {"alpha": node.attribute("alpha", 1.0)})


def _selu(node: Node) -> Tensor:
    words = {
        "alpha": node.attribute("alpha", SELU_ALPHA),
        "gamma": node.attribute("gamma", SELU_GAMMA),
    }
    return applied(node, "elu", node.given(0), words)


def _celu(node: Node) -> Tensor:
    """max(0, x) + min(0, alpha (e^(x / alpha) - 1)), where below zero an alpha may be as well."""
    alpha, x = node.attribute("alpha", 1.0), node.given(0)
    if alpha > 0.0:
        return applied(node, "elu", x, {"alpha": alpha, "width": alpha})
    if alpha == 0.0:
        raise node.refuse("an alpha of 0")
    real(node, x)
    powers = applied(node, "exp", both(node, "div", x, node.constant(np.array([alpha], np.float32))))
    less = both(node, "sub", powers, node.constant(np.ones(1, np.float32)))
    below = both(node, "mul", less, node.constant(np.array([alpha], np.float32)))
    zero = node.constant(np.zeros(1, np.float32))
    return both(node, "add", applied(node, "relu", x), both(node, "minimum", below, zero))


def _shrink(node: Node) -> Tensor:
    words = {"threshold": node.attribute("lambd", 0.5), "bias": node.attribute("bias", 0.0)}
    return applied(node, "shrink", node.given(0), words)


ONNX = {
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "Shrink": _shrink,
}
