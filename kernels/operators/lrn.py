"""Local response normalisation over neighbouring channels, the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    from_one_input,
    positive,
)
from kernels.operators.elementary import exp, log
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, channels_first, channels_last, real
from kernels.plan import Kernel
from kernels.program import Tensor


class LrnAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`size` channels around each one are looked at: (size - 1) // 2 before it, size // 2 behind."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0


class LrnEntry(Entry, frozen=True, kw_only=True):
    """A local response normalisation in a listing; x is [..., channels]."""

    inputs: OneInput
    attributes: LrnAttributes


class Lrn(Family):
    """y_c = x_c / (bias + alpha / size * sum of x_j^2 for j around c)^beta.

    Krizhevsky et al., "ImageNet classification with deep convolutional neural networks",
    NIPS 2012, section 3.3, with alpha divided by the size as ONNX has it.
    """

    kind = "lrn"
    entry = LrnEntry
    attributes = LrnAttributes
    input_scale = 8.0
    fuses = False

    def define(self, entry: LrnEntry) -> Definition:
        """Tensors x and y of one shape."""
        shape = positive("inputs.x", entry.inputs.x)
        positive("attributes.size", (entry.attributes.size,))
        return from_one_input(entry.attributes, shape, shape)

    def carried(self, attributes: LrnAttributes, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Where the channels stay the last axis."""
        return attributes if axes.get(rank - 1) == len(shape) - 1 else None

    def flops(self, attributes: LrnAttributes, shapes: Shapes) -> int:
        """Two for each element and neighbour, and five for each element."""
        return (2 * attributes.size + 5) * prod(shapes["x"])

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Vectors of channels where all neighbours exist, and the channels at the ends one by one."""
        attributes = msgspec.convert(kernel.attributes, LrnAttributes)
        channels = kernel.output.shape[-1]
        x, lanes = b.buffers["x"], b.cpu.lanes
        before, behind = (attributes.size - 1) // 2, attributes.size // 2
        whole = max(0, channels - before - behind) // lanes

        def finish(at: Any, total: Any, width: int) -> None:
            scale = b.constant(attributes.alpha / attributes.size, width)
            base = b.let(b.fma(b.let(total), scale, b.constant(attributes.bias, width)))
            b.store(b.buffers["y"], at, b.load(x, at, width) * _power(b, base, attributes.beta, width))

        with b.loop(0, kernel.output.elements // channels) as row:
            start = row * channels
            if whole:
                with b.loop(0, whole) as number:
                    first = start + before + number * lanes
                    total = b.constant(0.0, lanes)
                    for offset in range(-before, behind + 1):
                        value = b.let(b.load(x, first + offset, lanes))
                        total = b.let(b.fma(value, value, total))
                    finish(first, total, lanes)
            for low, high in ((0, before if whole else channels), (before + whole * lanes, channels)):
                if low >= high or (low and not whole):
                    continue
                with b.loop(low, high) as channel:
                    state = b.registers([1])
                    state[0] = b.constant(0.0, 1)
                    near = b.maximum(channel - before, 0), b.minimum(channel + behind + 1, channels)
                    with b.loop(*near) as other:
                        value = b.let(b.load(x, start + other, 1))
                        state[0] = b.fma(value, value, state[0])
                    finish(start + channel, state[0], 1)

    def reference(self, attributes: LrnAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """The sum's roundings and the base's count beta times; the power is as wrong as its logarithm.

        exp(-beta ln t) rounds beta ln t, of which the exponential makes a relative error.
        """
        x = arrays["x"].astype(np.float64)
        scale = np.float64(np.float32(attributes.alpha / attributes.size))
        base = np.float64(np.float32(attributes.bias)) + scale * _sums(x, attributes.size)
        value = x / base**attributes.beta
        exponent = np.abs(attributes.beta * np.log(base))
        own = attributes.beta * (attributes.size + 3) + 6 * exponent + 12
        return Estimate(value=value, magnitude=np.abs(value) * own, roundings=1)


def _power(b: Any, base: Any, beta: float, lanes: int) -> Any:
    """base^-beta for a base above zero; by roots alone for the 3/4 that everyone has."""
    one = b.constant(1.0, lanes)
    if beta == 0.75:  # noqa: PLR2004 - exactly this
        root = b.let(b.sqrt(base))
        return one / b.let(root * b.sqrt(root))
    return exp(b, b.let(log(b, base) * b.constant(-beta, lanes)))


def _sums(x: Array, size: int) -> Array:
    """For each channel the sum of squares of those around it."""
    shape: Shape = (*x.shape[:-1], x.shape[-1] + size - 1)
    padded = np.zeros(shape)
    first = (size - 1) // 2
    padded[..., first : first + x.shape[-1]] = x * x
    total: Array = np.sum([padded[..., k : k + x.shape[-1]] for k in range(size)], axis=0)
    return total


def _lrn(node: Node) -> Tensor:
    x = node.given(0)
    real(node, x)
    attributes = {
        "size": node.attribute("size"),
        "alpha": node.attribute("alpha", 1e-4),
        "beta": node.attribute("beta", 0.75),
        "bias": node.attribute("bias", 1.0),
    }
    return channels_first(node, node.call("lrn", {"x": channels_last(node, x)}, attributes))


FAMILIES = (Lrn(),)
ONNX = {"LRN": _lrn}
