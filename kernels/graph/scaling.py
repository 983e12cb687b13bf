"""Products of two activations that are scaled: the scale goes into the weights of the first.

An attention divides its scores, one for each pair of places, by the root of a head's
size; the queries' weights can be divided when the library is built.
"""

from __future__ import annotations

import msgspec
import numpy as np

from kernels.graph.affine import FILTERS
from kernels.graph.chains import Readers
from kernels.graph.draft import Draft
from kernels.program import Network, Operator, Role

MOVING = ("reshape", "transpose")


def fold_scales(network: Network) -> Network:
    """The same network without a pass over such a product's result.

    Tensors that hold other numbers then have other names, for a model's names are its tensors'.
    """
    named, dropped, scaled, between = _found(network, Readers(network))
    draft = Draft.of(network)
    renamed: dict[str, str] = {}
    for tensor in network.program.tensors:
        if tensor.role is Role.INTERNAL:
            name = draft.fresh(f"{tensor.name}.scaled") if tensor.name in between else tensor.name
            renamed[tensor.name] = draft.add(msgspec.structs.replace(tensor, name=name)).name
    for operator in network.program.operators:
        if operator.name in dropped:
            continue
        current = operator
        if operator.name in scaled:
            current = _with_scaled(draft, network, operator, scaled[operator.name])
        if operator.name in named:
            current = msgspec.structs.replace(current, outputs=(named[operator.name],))
        draft.append(
            msgspec.structs.replace(
                current,
                inputs=tuple(renamed.get(name, name) for name in current.inputs),
                outputs=tuple(renamed.get(name, name) for name in current.outputs),
            )
        )
    return draft.network()


def _found(
    network: Network, readers: Readers
) -> tuple[dict[str, str], set[str], dict[str, float], set[str]]:
    """Products with the name that their result takes, operators to drop, and factors of constants.

    A factor is given by the name of the operator whose constant operand it multiplies; last
    come the tensors from there to the products.
    """
    between: set[str] = set()
    named: dict[str, str] = {}
    dropped: set[str] = set()
    scaled: dict[str, float] = {}
    for operator in network.program.operators:
        following = readers.alone(operator.outputs[0]) if operator.kind == "gemm" else None
        factor = None if following is None else _factor(network, following, operator.outputs[0])
        if following is None or factor is None or operator.inputs[1] in network.constants:
            continue
        weights, path = _weights(network, readers, operator.inputs[0])
        if weights:
            between.update(path)
            named[operator.name] = following.outputs[0]
            dropped.add(following.name)
            scaled.update(dict.fromkeys(weights, factor))
    return named, dropped, scaled, between


def _factor(network: Network, operator: Operator, name: str) -> float | None:
    """What a tensor is multiplied by, if by one constant number that is not 0."""
    if operator.kind not in ("mul", "div") or (operator.kind == "div" and operator.inputs[0] != name):
        return None
    if network.program.tensor(operator.outputs[0]).shape != network.program.tensor(name).shape:
        return None
    (other,) = (given for given in operator.inputs if given != name)
    value = network.constants.get(other)
    if value is None or value.size != 1 or not np.isfinite(value).all() or not value.all():
        return None
    number = float(value.ravel()[0])
    return number if operator.kind == "mul" else 1.0 / number


def _weights(network: Network, readers: Readers, name: str) -> tuple[list[str], list[str]]:
    """The product with weights that makes a tensor, and what is added behind it; or else none.

    Beside them, the tensors on the way from there.
    """
    found: list[str] = []
    path: list[str] = []
    while readers.alone(name) is not None:
        path.append(name)
        maker = readers.maker(name)
        if maker is None:
            return [], []
        constants = [given for given in maker.inputs if given in network.constants]
        if maker.kind in FILTERS:
            return ([*found, maker.name], path) if maker.inputs[1:] == tuple(constants) else ([], [])
        if maker.kind == "add" and len(constants) == 1:
            found.append(maker.name)
        elif maker.kind not in MOVING:
            return [], []
        name = next(given for given in maker.inputs if given not in network.constants)
    return [], []


def _with_scaled(draft: Draft, network: Network, operator: Operator, factor: float) -> Operator:
    """The operator with its constant operand multiplied, in float64."""
    (name,) = (given for given in operator.inputs if given in network.constants)
    value = network.constants[name].astype(np.float64) * factor
    made = draft.constant(f"{name}.scaled", value, network.program.tensor(name).layout)
    inputs = tuple(made.name if given == name else given for given in operator.inputs)
    return msgspec.structs.replace(operator, inputs=inputs)
