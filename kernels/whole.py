"""Runs of a whole network: inputs, a reference that somebody made, and the judgement."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.arrays import load_arrays
from kernels.check import Verdict, apply_steps
from kernels.elements import from_bytes, numpy_type, to_bytes
from kernels.errors import InputError
from kernels.graph.planning import bind, grouped
from kernels.graph.storage import RESHAPE
from kernels.operators import find_family
from kernels.plan import NetworkPlan, Port
from kernels.program import ElementType, Network, Operator, Role
from toolchains.target import Target

Array = NDArray[Any]
COMPOSED = "the operators' own references in float64, one after the other"
NORMWISE = 1e-4
"""Of an output's largest magnitude: what the errors of a network's float32 sums may add up to.

A sum of k products is off by about u sqrt(k) of its magnitude, 4e-6 for k = 4608 (Higham and
Mary, SIAM J. Sci. Comput. 41(5), 2019); the errors of some hundred layers add up like a random
walk, and what a normalisation or an exponential makes of them leaves a factor of a few. A call
with wrong operands is off by the whole magnitude; what a single kernel gets wrong by less is
found where it is checked alone, element by element."""

HALVES = {ElementType.FLOAT16: 2.0**-8, ElementType.BFLOAT16: 2.0**-5}
"""The same for outputs of half precision: eight of their unit round-offs, 2^-11 and 2^-8
(IEEE 754-2019, table 3.5), for a few roundings on both sides."""

NOTHING = 2.0**-24
"""What may be in the place of an output of zeros alone: who computes it may cut off a function's tail."""
BYTES = (ElementType.INT8, ElementType.UINT8)
"""Outputs that may be off by one: they are roundings of numbers that the last place decides."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of a network and what it ought to make of them, by the model's names.

    `source` says who computed that. An error may be `normwise` of the largest magnitude of its
    output, or what `looser` has for it by name, and `relative` of its element's.
    """

    source: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    normwise: float = NORMWISE
    relative: float = 0.0
    looser: dict[str, float] = {}


def digest(reference: Reference) -> str:
    """SHA-256 of all that a judgement depends on."""
    total = hashlib.sha256()
    for kind, arrays in (("in", reference.inputs), ("out", reference.outputs)):
        for name, array in arrays.items():
            total.update(f"{kind} {name} {array.dtype} {array.shape}\0".encode())
            total.update(np.ascontiguousarray(array).data)
    total.update(f"{reference.source} {reference.normwise} {reference.relative}".encode())
    total.update(msgspec.json.encode(reference.looser))
    return total.hexdigest()


def save(reference: Reference, path: Path) -> None:
    """Keep a reference in a file, so that a check can be made again."""
    arrays: dict[str, Array] = {"source": np.array(reference.source)}
    arrays["tolerances"] = np.array([reference.normwise, reference.relative])
    arrays["looser.names"] = np.array(list(reference.looser), dtype=np.str_)
    arrays["looser"] = np.array(list(reference.looser.values()), dtype=np.float64)
    for kind, named in (("in", reference.inputs), ("out", reference.outputs)):
        arrays[f"{kind}.names"] = np.array(list(named))
        arrays |= {f"{kind}.{number}": array for number, array in enumerate(named.values())}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load(path: Path) -> Reference:
    """A reference that was saved; InputError if it is none."""
    kept = load_arrays(path)

    def named(kind: str) -> dict[str, Array]:
        names = kept[f"{kind}.names"].ravel()
        return {str(name): _known(kept[f"{kind}.{number}"]) for number, name in enumerate(names)}

    try:
        normwise, relative = (float(value) for value in kept["tolerances"])
        return Reference(
            source=str(kept["source"]),
            inputs=named("in"),
            outputs=named("out"),
            normwise=normwise,
            relative=relative,
            looser=dict(
                zip(map(str, kept["looser.names"].ravel()), map(float, kept["looser"]), strict=True)
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no reference of a network: {error}") from error


def _known(array: Array) -> Array:
    """What was saved: NumPy's files hold bfloat16 as two bytes of no known type."""
    return array.view(numpy_type(ElementType.BFLOAT16)) if array.dtype.kind == "V" else array


def draw_inputs(network: Network, least: int = 0) -> dict[str, Array]:
    """Numbers from [-1, 1), or integers from `least` to 1, for every input; the same in every run."""
    drawn = {}
    for tensor in network.program.tensors:
        if tensor.role is Role.INPUT:
            seed = hashlib.sha256(f"{network.program.name}/{tensor.name}".encode()).digest()
            generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8], "little")))
            array: Array = generator.uniform(-1.0, 1.0, tensor.shape)
            if not tensor.dtype.floating:
                array = generator.integers(least, 2, tensor.shape)
            drawn[tensor.name] = array.astype(numpy_type(tensor.dtype))
    return drawn


def compose(network: Network) -> Reference:
    """The reference where nobody brings another: every operator's own, in float64."""
    inputs = draw_inputs(network)
    values: dict[str, Array] = {**network.constants, **inputs}
    for operators in grouped(network.program.operators):
        _evaluate(network, operators, values)
    outputs = {
        tensor.name: values[tensor.name] if tensor.elements else np.zeros(tensor.shape)
        for tensor in network.program.tensors
        if tensor.role is Role.OUTPUT
    }
    return Reference(source=COMPOSED, inputs=inputs, outputs=outputs)


def _evaluate(network: Network, operators: list[Operator], values: dict[str, Array]) -> None:
    if operators[0].kind == RESHAPE:
        (result,) = operators[0].outputs
        values[result] = values[operators[0].inputs[0]].reshape(network.program.tensor(result).shape)
        return
    bound = bind(network.program, operators)
    leading = bound.leading
    family = find_family(leading.kind)
    arrays = {
        operand.name: values[tensor].reshape(operand.shape)
        for operand, tensor in zip(bound.operands[:-1], bound.tensors[:-1], strict=True)
    }
    estimate = family.reference(msgspec.convert(leading.attributes, family.attributes), arrays)
    value = apply_steps(bound.steps, estimate, arrays).value
    output = bound.operands[-1]
    if output.dtype is not ElementType.FLOAT32:
        value = value.astype(numpy_type(output.dtype))
    values[bound.tensors[-1]] = value.reshape(output.shape)


def input_bytes(network: NetworkPlan, reference: Reference, target: Target) -> bytes:
    """What a runner reads: the inputs in order, in the target's byte order."""
    return b"".join(_bytes(port, reference.inputs, target) for port in network.inputs)


def _bytes(port: Port, arrays: Mapping[str, Array], target: Target) -> bytes:
    array = arrays[port.name].astype(numpy_type(port.dtype), copy=False)
    if array.size != port.elements:
        raise ValueError(f"{port.name} has {array.size} elements, but {port.elements} are due")
    return to_bytes(array, target.byte_order)


def judge(network: NetworkPlan, reference: Reference, output: bytes, target: Target) -> Verdict:
    """Compare a runner's outputs with the reference; the worst element of all is told."""
    due = sum(port.bytes for port in network.outputs)
    if len(output) != due:
        reason = f"{len(output)} bytes of output instead of {due}"
        return Verdict(passed=False, error=float("inf"), bound=0.0, reason=reason)
    worst, share = Verdict(passed=True, error=0.0, bound=0.0), -1.0
    for port in network.outputs:
        if not port.elements:
            continue
        raw, output = output[: port.bytes], output[port.bytes :]
        found = from_bytes(raw, port.dtype, target.byte_order)
        verdict, its_share = _judge(port, reference, found.astype(np.float64))
        if its_share > share:
            worst, share = verdict, its_share
    return worst


def _judge(port: Port, reference: Reference, found: Array) -> tuple[Verdict, float]:
    expected = reference.outputs[port.name].astype(np.float64).ravel()
    size = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    largest = float(size.max(initial=0.0))
    bound = np.zeros_like(expected)
    if port.dtype in BYTES:
        bound += max(1.0, reference.looser.get(port.name, 0.0) * largest)
    elif port.dtype.floating:
        normwise = reference.looser.get(port.name, reference.normwise)
        normwise = max(normwise, HALVES.get(port.dtype, 0.0))
        bound = normwise * largest + reference.relative * size if largest else bound + NOTHING
    with np.errstate(all="ignore"):
        error = np.abs(found - expected)
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
        shares = np.where(same, 0.0, error / bound)
    worst = int(np.argmax(shares))
    passed = bool(shares[worst] <= 1.0)
    verdict = Verdict(passed=passed, error=float(error[worst]), bound=float(bound[worst]))
    if not passed:
        index = [int(i) for i in np.unravel_index(worst, port.shape)] if port.shape else []
        wrong = int(np.count_nonzero(shares > 1.0))
        reason = (
            f"{port.name}{index}: expected {expected[worst]:.9g}, found {found[worst]:.9g}, "
            f"error {error[worst]:.3g} over the bound {bound[worst]:.3g}; "
            f"{wrong} of {found.size} elements are wrong"
        )
        verdict = msgspec.structs.replace(verdict, reason=reason)
    return verdict, float(shares[worst])
