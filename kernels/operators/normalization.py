"""Normalisations: over the last axis (layer, RMS), over groups of channels, and folded batch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    positive,
)
from kernels.operators.elementwise import NoAttributes, OneInput
from kernels.plan import Kernel
from kernels.program import Role, Tensor
from kernels.schedules import channels

MINIMUM_RANK = 3
"""Of a group normalisation's input: [batch, pixels, channels]."""


class EpsilonAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is added to the variance before its root is taken."""

    epsilon: float = 1e-5


class NormEntry(Entry, frozen=True, kw_only=True):
    """A normalisation in a listing; x is [..., channels]."""

    inputs: OneInput
    attributes: EpsilonAttributes = EpsilonAttributes()


class GroupAttributes(EpsilonAttributes, frozen=True, kw_only=True):
    """`groups` divides the channels; as many as channels is instance normalisation."""

    groups: int


class GroupEntry(Entry, frozen=True, kw_only=True):
    """A group normalisation in a listing; x is [batch, ..., channels]."""

    inputs: OneInput
    attributes: GroupAttributes


class BatchEntry(Entry, frozen=True, kw_only=True):
    """A folded batch normalisation in a listing; x is [..., channels]."""

    inputs: OneInput


class _Normalization(Family):
    """What all share: x, a scale and a shift per channel, y of x's shape."""

    entry: ClassVar[type[Any]] = NormEntry
    attributes: ClassVar[type[Any]] = EpsilonAttributes
    weights = frozenset({"scale", "shift"})
    shifted = True
    """Whether there is a shift beside the scale."""

    def define(self, entry: Any) -> Definition:
        """Tensors x, scale, shift (weights, one number for each channel) and y."""
        shape = positive("inputs.x", entry.inputs.x)
        names = ("scale", "shift") if self.shifted else ("scale",)
        return Definition(
            attributes=msgspec.to_builtins(getattr(entry, "attributes", NoAttributes())),
            operands=(
                Tensor(name="x", shape=shape, role=Role.INPUT),
                *(Tensor(name=name, shape=shape[-1:], role=Role.CONSTANT) for name in names),
            ),
            output=Tensor(name="y", shape=shape, role=Role.OUTPUT),
        )

    def carried(self, attributes: Any, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Where the channels stay the last axis."""
        return attributes if axes.get(rank - 1) == len(shape) - 1 else None

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """Eight for each element: mean, difference, square, sum, scaling, shift."""
        return 8 * prod(shapes["x"])


def _sum(b: Any, start: Any, columns: int, element: Any) -> Any:
    return channels.emit_fold(b, start, columns, 0.0, element, lambda a, c: a + c, chains=4)


class LayerNorm(_Normalization):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + shift, along the last axis."""

    kind = "layer_norm"
    centred = True

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Three passes over a row that stays in the cache: mean, variance, result."""
        attributes = msgspec.convert(kernel.attributes, EpsilonAttributes)
        x, columns = b.buffers["x"], kernel.output.shape[-1]
        count = b.constant(float(columns), 1)
        with b.loop(0, kernel.output.elements // columns) as row:
            start = row * columns
            mean = b.constant(0.0, 1)
            if self.centred:
                mean = b.let(_sum(b, start, columns, lambda at, lanes: b.load(x, at, lanes)) / count)

            def square(at: Any, lanes: int) -> Any:
                value = b.let(b.load(x, at, lanes) - b.splat(mean, lanes))
                return value * value

            variance = b.let(_sum(b, start, columns, square) / count)
            root = b.sqrt(b.let(variance + b.constant(attributes.epsilon, 1)))
            scale = b.let(b.constant(1.0, 1) / root)

            def body(column: Any, lanes: int) -> None:
                value = b.let(b.load(x, start + column, lanes) - b.splat(mean, lanes))
                value = b.let(value * b.splat(scale, lanes))
                weight = b.load(b.buffers["scale"], column, lanes)
                if self.shifted:
                    value = b.fma(value, weight, b.load(b.buffers["shift"], column, lanes))
                else:
                    value = value * weight
                b.store(b.buffers["y"], start + column, epilogue(value, row, column))

            channels.emit_map(b, columns, body)

    def reference(self, attributes: EpsilonAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """The mean's error, then the variance's relative to itself, then three roundings."""
        x = arrays["x"].astype(np.float64)
        return _normalized(
            x, arrays, (-1,), np.float64(np.float32(attributes.epsilon)), centred=self.centred
        )


class RmsNorm(LayerNorm):
    """y = x / sqrt(mean of x^2 + epsilon) * scale, along the last axis."""

    kind = "rms_norm"
    centred = False
    shifted = False


class GroupNorm(_Normalization):
    """Each image's groups of channels are normalised over all its pixels."""

    kind = "group_norm"
    entry = GroupEntry
    attributes = GroupAttributes

    def define(self, entry: GroupEntry) -> Definition:
        """As for all; the groups must divide the channels."""
        shape = positive("inputs.x", entry.inputs.x)
        groups = entry.attributes.groups
        if groups < 1 or shape[-1] % groups or len(shape) < MINIMUM_RANK:
            raise InputError(
                f"attributes.groups = {groups} must divide the channels of x, [batch, ..., channels]",
                key="attributes.groups",
            )
        return super().define(entry)

    def carried(self, attributes: Any, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """The images must stay apart, and the groups in one."""
        return None

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Three passes over each image and group: mean, variance, result."""
        attributes = msgspec.convert(kernel.attributes, GroupAttributes)
        shape, x = kernel.output.shape, b.buffers["x"]
        total, width = shape[-1], shape[-1] // attributes.groups
        pixels = prod(shape[1:-1])
        count = b.constant(float(pixels * width), 1)
        with b.loop(0, shape[0]) as image, b.loop(0, attributes.groups) as group:
            first = image * (pixels * total) + group * width
            state = b.registers([1])

            def over_pixels(element: Any, state: Any = state, first: Any = first) -> Any:
                state[0] = b.constant(0.0, 1)
                with b.loop(0, pixels) as pixel:
                    part = _sum(b, first + pixel * total, width, element)
                    state[0] = state[0] + part
                return b.let(state[0] / count)

            mean = over_pixels(lambda at, lanes: b.load(x, at, lanes))

            def square(at: Any, lanes: int, mean: Any = mean) -> Any:
                value = b.let(b.load(x, at, lanes) - b.splat(mean, lanes))
                return value * value

            variance = over_pixels(square)
            root = b.sqrt(b.let(variance + b.constant(attributes.epsilon, 1)))
            scale = b.let(b.constant(1.0, 1) / root)
            with b.loop(0, pixels) as pixel:

                def body(at: Any, lanes: int, mean: Any = mean, scale: Any = scale) -> None:
                    channel = group * width + at
                    row = image * pixels + pixel
                    value = b.let(b.load(x, row * total + channel, lanes) - b.splat(mean, lanes))
                    value = b.let(value * b.splat(scale, lanes))
                    weight = b.load(b.buffers["scale"], channel, lanes)
                    value = b.fma(value, weight, b.load(b.buffers["shift"], channel, lanes))
                    b.store(b.buffers["y"], row * total + channel, epilogue(value, row, channel))

                channels.emit_map(b, width, body)

    def reference(self, attributes: GroupAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """As layer normalisation, over pixels and the channels of a group."""
        x = arrays["x"].astype(np.float64)
        split = x.reshape(x.shape[0], -1, attributes.groups, x.shape[-1] // attributes.groups)
        weights = {name: arrays[name].reshape(attributes.groups, -1) for name in ("scale", "shift")}
        estimate = _normalized(
            split, weights, (1, 3), np.float64(np.float32(attributes.epsilon)), centred=True
        )
        return msgspec.structs.replace(
            estimate, value=estimate.value.reshape(x.shape), magnitude=estimate.magnitude.reshape(x.shape)
        )


class BatchNorm(_Normalization):
    """y = x * scale + shift: batch normalisation whose statistics are folded into both.

    scale = gamma / sqrt(variance + epsilon), shift = beta - mean * scale.
    """

    kind = "batch_norm"
    entry = BatchEntry
    attributes = NoAttributes

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One multiply-add for each element."""
        columns = kernel.output.shape[-1]
        with b.loop(0, kernel.output.elements // columns) as row:

            def body(column: Any, lanes: int) -> None:
                value = b.fma(
                    b.load(b.buffers["x"], row * columns + column, lanes),
                    b.load(b.buffers["scale"], column, lanes),
                    b.load(b.buffers["shift"], column, lanes),
                )
                b.store(b.buffers["y"], row * columns + column, epilogue(value, row, column))

            channels.emit_map(b, columns, body)

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """A product and a sum."""
        x, scale, shift = (arrays[name].astype(np.float64) for name in ("x", "scale", "shift"))
        return Estimate(value=x * scale + shift, magnitude=np.abs(x * scale) + np.abs(shift), roundings=2)


def _normalized(
    x: Array, weights: Mapping[str, Array], axes: tuple[int, ...], epsilon: float, *, centred: bool
) -> Estimate:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with its bound.

    The mean is wrong by at most (n + 1) u mean|x|; that error, relative to the deviation,
    and n + 4 roundings of the variance, halved by the root, and four more at the end.
    """
    count = prod(x.shape[axis] for axis in axes)
    mean = x.mean(axis=axes, keepdims=True) if centred else np.zeros_like(x.mean(axis=axes, keepdims=True))
    deviation = np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + epsilon)
    average = np.abs(x).mean(axis=axes, keepdims=True) if centred else 0.0
    scale = weights["scale"].astype(np.float64)
    shift = weights["shift"].astype(np.float64) if "shift" in weights else 0.0
    plain = (x - mean) / deviation
    magnitude = (np.abs(plain) + (np.abs(x) + 2 * average) / deviation) * np.abs(scale) + np.abs(shift)
    return Estimate(value=plain * scale + shift, magnitude=magnitude, roundings=count + 8)


FAMILIES = (LayerNorm(), RmsNorm(), GroupNorm(), BatchNorm())
