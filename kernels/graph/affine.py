"""Batch normalisation and other arithmetic per channel, folded into the weights before it.

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


def fold_affine(network: Network) -> Network:
    """The same network with chains of arithmetic per channel folded."""
    readers = Readers(network)
    draft = Draft.of(network)
    done: set[str] = set()
    for tensor in network.program.tensors:
        if tensor.role is Role.INTERNAL:
            draft.add(tensor)
    for operator in network.program.operators:
        if operator.name in done:
            continue
        chain, affine = _chain(network, readers, operator)
        if not chain or not affine.finite():
            draft.append(operator)
            continue
        done.update(each.name for each in chain)
        if operator.kind in FILTERS:
            _fold(draft, network, operator, affine, chain[-1].outputs[0])
        else:
            _normalise(draft, network, operator, affine, chain[-1].outputs[0])
    return draft.network()


def _chain(network: Network, readers: Readers, leading: Operator) -> tuple[list[Operator], Affine]:
    """The operators behind `leading` that are affine per channel, and what they do together."""
    program = network.program
    channels = program.tensor(leading.outputs[0]).shape[-1:]
    total = Affine(np.ones(1), np.zeros(1))
    chain: list[Operator] = []
    if leading.kind not in FILTERS:
        own = _affine(network, leading, leading.inputs[0], channels)
        if own is None or leading.kind not in ("batch_norm", "mul"):
            return [], total
        total = own
    elif program.tensor(leading.inputs[1]).role is not Role.CONSTANT:
        return [], total
    name = leading.outputs[0]
    while (following := readers.alone(name)) is not None:
        own = _affine(network, following, name, channels)
        if own is None or program.tensor(following.outputs[0]).shape != program.tensor(name).shape:
            break
        chain.append(following)
        total = total.then(own)
        name = following.outputs[0]
    if leading.kind in FILTERS and [each.kind for each in chain] == ["add"]:
        return [], total
    return chain, total


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


def _fold(draft: Draft, network: Network, leading: Operator, affine: Affine, result: str) -> None:
    """Scale the weights, and leave one addition if there is a shift."""
    x, w = leading.inputs
    weights = network.constants[w].astype(np.float64)
    axis = FILTERS[leading.kind]
    if leading.kind == "gemm" and leading.attributes["transpose"] in ("nt", "tt"):
        axis = -2
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


def _normalise(draft: Draft, network: Network, leading: Operator, affine: Affine, result: str) -> None:
    """One product and sum for each element, where there is no product to fold it into."""
    x = next(name for name in leading.inputs if name not in network.constants)
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
