"""Batch normalisation and other arithmetic per channel, folded into the weights before it, or behind it.

Element by element in float64, rounded once when all is folded: the constants of a library
must not depend on the processor that builds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from kernels.graph.chains import Readers
from kernels.graph.draft import Draft
from kernels.operators.base import Array
from kernels.program import ElementType, Network, Operator, Role, Tensor

FILTERS = {
    "conv1d": 0,
    "conv2d": 0,
    "conv3d": 0,
    "depthwise_conv2d": 0,
    "conv_transpose1d": 0,
    "conv_transpose2d": 0,
    "conv_transpose3d": 0,
    "gemm": -1,
}
"""The axis of the weights, the second operand, along which the result's channels lie."""
PRODUCTS = FILTERS.keys() - {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
"""Those that also take what is done to their input: every result of them sees all channels and taps."""
MATRIX = 2
MOST_SHIFT = 8.0
"""Of an input whose deviation is about 1: three bits of a sum may cancel."""


@dataclass(frozen=True)
class Affine:
    """y -> scale y + shift, a number for each channel or one for all."""

    scale: Array
    shift: Array

    def then(self, other: Affine) -> Affine:
        """One after the other."""
        with np.errstate(all="ignore"):
            return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)

    def finite(self) -> bool:
        """Whether folding it changes no infinity and no NaN."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())


IDENTITY = Affine(np.ones(1), np.zeros(1))


def fold_affine(network: Network) -> Network:
    """The same network with chains of arithmetic per channel folded.

    A chain goes into the weights of the product before it, or else into those of the one behind it.
    """
    folding = _Folding(network)
    for operator in network.program.operators:
        folding.take(operator)
    return folding.draft.network()


class _Folding:
    """The network in the making, and which of its operators are in others already."""

    def __init__(self, network: Network) -> None:
        """All tensors, and no operators yet."""
        self._network, self._readers = network, Readers(network)
        self.draft = Draft.of(network)
        for tensor in network.program.tensors:
            if tensor.role is Role.INTERNAL:
                self.draft.add(tensor)
        self._done: set[str] = set()
        self._before: dict[str, tuple[str, Affine]] = {}
        """By a product's name, what its input was made of, and how."""

    def take(self, operator: Operator) -> None:
        """Put an operator where it belongs."""
        if operator.name in self._done:
            return
        chain, affine = _chain(self._network, self._readers, operator)
        if affine is None or not affine.finite():
            chain, affine = [], IDENTITY
        take = self._product if operator.kind in FILTERS else self._others
        if take(operator, chain, affine):
            self._done.update(each.name for each in chain)
        else:
            self.draft.append(operator)

    def _product(self, operator: Operator, chain: list[Operator], affine: Affine) -> bool:
        given = self._before.get(operator.name)
        if given is None and (not chain or [each.kind for each in chain] == ["add"]):
            return False
        result = [operator, *chain][-1].outputs[0]
        _fold(self.draft, self._network, operator, given or (operator.inputs[0], IDENTITY), affine, result)
        return True

    def _others(self, operator: Operator, chain: list[Operator], affine: Affine) -> bool:
        result = [operator, *chain][-1].outputs[0]
        following = self._readers.alone(result)
        if following is not None and _takes(self._network, following, result, affine):
            self._before[following.name] = _varying(self._network, operator), affine
            return True
        if not chain or not self._network.program.tensor(result).shape:
            return False
        _normalise(self.draft, self._network, operator, affine, result)
        return True


def _chain(network: Network, readers: Readers, leading: Operator) -> tuple[list[Operator], Affine | None]:
    """The operators behind `leading` that are affine per channel, and what they do together.

    With what it does itself if it is no product; None where it begins no such chain.
    """
    program = network.program
    channels = program.tensor(leading.outputs[0]).shape[-1:]
    total: Affine | None = IDENTITY
    if leading.kind not in FILTERS:
        varying = not network.constants.keys() >= set(leading.inputs)
        begins = varying and leading.kind in ("batch_norm", "mul")
        total = _affine(network, leading, leading.inputs[0], channels) if begins else None
    elif program.tensor(leading.inputs[1]).role is not Role.CONSTANT:
        total = None
    chain: list[Operator] = []
    name = leading.outputs[0]
    while total is not None and (following := readers.alone(name)) is not None:
        own = _affine(network, following, name, channels)
        if own is None or program.tensor(following.outputs[0]).shape != program.tensor(name).shape:
            break
        chain.append(following)
        total = total.then(own)
        name = following.outputs[0]
    return chain, total


def _takes(network: Network, following: Operator, name: str, affine: Affine) -> bool:
    """Whether a product can have what is done to its input `name` in its weights.

    A shift is not that of the zeros around an image. One of many deviations would only cancel
    again what the product then sums up, and with it the sum's last digits.
    """
    if following.kind not in PRODUCTS or following.inputs[0] != name or affine is IDENTITY:
        return False
    weights = network.constants.get(following.inputs[1])
    attributes = following.attributes
    if weights is None or weights.dtype != np.float32 or attributes.get("x_layout") == "NCHW":
        return False
    if following.kind == "gemm" and (weights.ndim != MATRIX or attributes["transpose"] not in ("nn", "nt")):
        return False
    padded = any(attributes.get("padding", ()))  # type: ignore[arg-type]
    return not affine.shift.any() or (not padded and float(np.abs(affine.shift).max()) <= MOST_SHIFT)


def _varying(network: Network, operator: Operator) -> str:
    """The input that is not constant."""
    return next(name for name in operator.inputs if name not in network.constants)


def _affine(network: Network, operator: Operator, name: str, channels: tuple[int, ...]) -> Affine | None:
    """What an operator does to the tensor `name`, if that is affine per channel, in float32."""
    if network.program.tensor(operator.outputs[0]).dtype is not ElementType.FLOAT32:
        return None
    if operator.kind == "batch_norm" and operator.inputs[0] == name:
        scale, shift = (network.constants[given].astype(np.float64) for given in operator.inputs[1:])
        return Affine(scale, shift)
    if operator.kind not in ("add", "sub", "mul", "div"):
        return None
    first = operator.inputs[0] == name
    other = network.constants.get(operator.inputs[1 if first else 0])
    if other is None or other.shape not in (channels, (1,)):
        return None
    return _arithmetic(operator.kind, other.astype(np.float64), first=first)


def _arithmetic(kind: str, value: Array, *, first: bool) -> Affine | None:
    """An operator on a tensor, the first operand or the second, and a constant."""
    one, zero = np.ones(1), np.zeros(1)
    if kind == "add":
        return Affine(one, value)
    if kind == "sub":
        return Affine(one, -value) if first else Affine(-one, value)
    if kind == "mul":
        return Affine(value, zero)
    with np.errstate(all="ignore"):
        return Affine(one / value, zero) if first else None


def _fold(
    draft: Draft,
    network: Network,
    leading: Operator,
    given: tuple[str, Affine],
    affine: Affine,
    result: str,
) -> None:
    """Scale the weights by what is done to the input and to the result; leave an addition for a shift."""
    x, before = given
    w = leading.inputs[1]
    weights = network.constants[w].astype(np.float64)
    axis = FILTERS[leading.kind]
    if leading.kind == "gemm" and leading.attributes["transpose"] in ("nt", "tt"):
        axis = -2
    if before is not IDENTITY:
        shift = _summed(weights * _spread(leading, weights, before.shift), axis)
        weights = weights * _spread(leading, weights, before.scale)
        affine = Affine(np.ones(1), shift).then(affine)
    shape = [1] * weights.ndim
    shape[axis] = -1
    scaled = draft.constant(
        f"{w}.scaled", weights * affine.scale.reshape(shape), network.program.tensor(w).layout
    )
    moved = bool(np.any(affine.shift))
    made = leading.outputs[0] if moved else result
    draft.append(msgspec.structs.replace(leading, inputs=(x, scaled.name), outputs=(made,)))
    if moved:
        channels = network.program.tensor(result).shape[-1:]
        bias = draft.constant(
            f"{result}.bias", np.ascontiguousarray(np.broadcast_to(affine.shift, channels))
        )
        draft.append(
            Operator(
                name=f"{leading.name}.bias",
                kind="add",
                inputs=(made, bias.name),
                outputs=(result,),
                operands=("a", "b", "y"),
            )
        )


def _spread(leading: Operator, weights: Array, value: Array) -> Array:
    """A number for each channel of a product's input, or one for all, in the shape of its weights' axes."""
    if value.size == 1:
        return value.reshape(())
    if leading.kind == "gemm":
        return value[:, None] if leading.attributes["transpose"] == "nn" else value
    filters, size = weights.shape[0], weights.shape[-1]
    groups = value.size // size
    each = np.repeat(value.reshape(groups, size), filters // groups, axis=0)
    return each.reshape(filters, *[1] * (weights.ndim - 2), size)


def _summed(terms: Array, axis: int) -> Array:
    """The sum along all axes but one, in order: NumPy's own depends on the processor."""
    rows = np.moveaxis(terms, axis, -1).reshape(-1, terms.shape[axis])
    total = np.zeros(rows.shape[-1])
    for row in rows:
        total = total + row
    return total


def _normalise(draft: Draft, network: Network, leading: Operator, affine: Affine, result: str) -> None:
    """One product and sum for each element, where there is no product to fold it into."""
    x = _varying(network, leading)
    channels = network.program.tensor(result).shape[-1:]
    whole: list[Tensor] = [
        draft.constant(f"{result}.{word}", np.ascontiguousarray(np.broadcast_to(value, channels)))
        for word, value in (("scale", affine.scale), ("shift", affine.shift))
    ]
    draft.append(
        Operator(
            name=leading.name,
            kind="batch_norm",
            inputs=(x, *(tensor.name for tensor in whole)),
            outputs=(result,),
            operands=("x", "scale", "shift", "y"),
        )
    )
