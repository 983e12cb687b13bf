"""ONNX's normalisations: with statistics and scales that are known, or computed like any tensor."""

from __future__ import annotations

import numpy as np

from kernels.operators.base import Shape
from kernels.operators.binary import both
from kernels.operators.node import Node, axis_of, channels_first, channels_last, real, reshaped
from kernels.operators.unary import applied
from kernels.program import Tensor


def _batch_norm(node: Node) -> Tensor | tuple[Tensor, ...]:
    """The statistics folded in float64, correctly rounded operation by operation, where all are known."""
    x = node.given(0)
    real(node, x)
    if node.attribute("training_mode", 0):
        return _of_the_batch(node, x)
    if any(node.outputs[1:]):
        raise node.refuse("statistics of its own, which only training has")
    values = [node.value(number) for number in range(1, 5)]
    known = [value.astype(np.float64) for value in values if value is not None]
    if len(known) < len(values):
        return _scaled(node, x, node.given(3), node.given(4))
    gamma, beta, mean, variance = known
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + np.float64(node.attribute("epsilon", 1e-5)))
        shift = beta - mean * scale
    operands = {"x": channels_last(node, x), "scale": node.constant(scale), "shift": node.constant(shift)}
    return channels_first(node, node.call("batch_norm", operands))


def _scaled(node: Node, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """(x - mean) (scale / sqrt(variance + epsilon)) + bias, of statistics for each channel."""
    shape = _beside(x)
    epsilon = node.constant(np.array([node.attribute("epsilon", 1e-5)]))
    deviation = applied(node, "sqrt", both(node, "add", variance, epsilon))
    scale = both(node, "div", node.given(1), deviation)
    centred = both(node, "sub", x, reshaped(node, mean, shape))
    y = both(node, "mul", centred, reshaped(node, scale, shape))
    return both(node, "add", y, reshaped(node, node.given(2), shape))


def _of_the_batch(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    """By the batch's own mean and variance, and the running ones moved towards them."""
    channels = x.shape[1:2]
    axes = (0, *range(2, len(x.shape)))
    mean = node.call("reduce_mean", {"x": x}, {"axes": axes})
    centred = both(node, "sub", x, mean)
    variance = node.call("reduce_mean", {"x": both(node, "mul", centred, centred)}, {"axes": axes})
    found = [reshaped(node, statistic, channels) for statistic in (mean, variance)]
    momentum = float(node.attribute("momentum", 0.9))
    old, new = node.constant(np.array([momentum])), node.constant(np.array([1.0 - momentum]))
    running = [
        both(node, "add", both(node, "mul", node.given(number), old), both(node, "mul", statistic, new))
        for number, statistic in enumerate(found, 3)
    ]
    return _scaled(node, x, *found), *running


def _beside(x: Tensor) -> Shape:
    """The shape in which a number for each channel broadcasts to x, channels first."""
    return (x.shape[1], *(1 for _ in x.shape[2:]))


def _layer_norm(node: Node) -> Tensor:
    x = node.given(0)
    real(node, x)
    if any(node.outputs[1:]):
        raise node.refuse("its mean or deviation is needed, which only training has")
    if node.attribute("axis", -1) % len(x.shape) != len(x.shape) - 1:
        raise node.refuse("it normalises over more than the last axis")
    scale = node.known(1, "scale")
    shift = node.known(2, "bias") if len(node.inputs) > 2 else np.zeros_like(scale)  # noqa: PLR2004 - third
    operands = {"x": x, "scale": node.constant(scale), "shift": node.constant(shift)}
    return node.call("layer_norm", operands, {"epsilon": node.attribute("epsilon", 1e-5)})


def _instance_norm(node: Node) -> Tensor:
    """In one kernel; a scale or bias that is computed comes after it."""
    x = node.given(0)
    real(node, x)
    scale, shift = node.value(1), node.value(2)
    known = scale is not None and shift is not None
    if scale is None or shift is None:
        scale, shift = np.ones(x.shape[1]), np.zeros(x.shape[1])
    operands = {"x": channels_last(node, x), "scale": node.constant(scale), "shift": node.constant(shift)}
    attributes = {"epsilon": node.attribute("epsilon", 1e-5), "groups": x.shape[1]}
    y = channels_first(node, node.call("group_norm", operands, attributes))
    if known:
        return y
    y = both(node, "mul", y, reshaped(node, node.given(1), _beside(x)))
    return both(node, "add", y, reshaped(node, node.given(2), _beside(x)))


def _lp_norm(node: Node) -> Tensor:
    """X over its norm along an axis; 0 where that is 0."""
    x = node.given(0)
    real(node, x)
    axis = axis_of(node, node.attribute("axis", -1), len(x.shape))
    p = node.attribute("p", 2)
    if p == 1:
        norm = node.call("reduce_sum", {"x": applied(node, "absolute", x)}, {"axes": (axis,)})
    elif p == 2:  # noqa: PLR2004 - ONNX has no others
        norm = node.call("reduce_l2", {"x": x}, {"axes": (axis,)})
    else:
        raise node.refuse(f"a norm of p = {p}; there are 1 and 2")
    zero, one = node.constant(np.zeros(1, np.float32)), node.constant(np.ones(1, np.float32))
    empty = node.call("equal", {"a": norm, "b": zero})
    return both(node, "div", x, node.call("where", {"condition": empty, "a": one, "b": norm}))


ONNX = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "LpNormalization": _lp_norm,
}
