"""What passes leave behind: reshapings of reshapings, and to the shape that was there already."""

from __future__ import annotations

import msgspec

from kernels.graph.draft import Draft
from kernels.graph.layout import shape_of
from kernels.program import Network, Operator, Role, Tensor


def tidy(network: Network) -> Network:
    """The same network without needless reshapings; an output's maker gives it its name."""
    program = network.program
    source: dict[str, str] = {}
    """The tensor that a reshaped one has its elements from."""
    same: dict[str, str] = {}
    """The tensor that stands for another one of the same shape."""
    kept: list[Operator] = []
    for operator in program.operators:
        inputs = tuple(same.get(name, name) for name in operator.inputs)
        current = msgspec.structs.replace(operator, inputs=inputs)
        if operator.kind == "reshape":
            (name,), (made,) = inputs, operator.outputs
            origin = source.get(name, name)
            source[made] = origin
            current = msgspec.structs.replace(current, inputs=(origin,))
            unchanged = program.tensor(origin).shape == shape_of(operator, "shape")
            if unchanged and program.tensor(made).role is not Role.OUTPUT:
                same[made] = origin
                continue
        kept.append(current)
    return _renamed(network, kept)


def _renamed(network: Network, operators: list[Operator]) -> Network:
    """Outputs that are another tensor under their own name take its place, once each."""
    program = network.program
    names: dict[str, str] = {}
    for operator in operators:
        if operator.kind == "reshape":
            given, made = program.tensor(operator.inputs[0]), program.tensor(operator.outputs[0])
            if (
                given.role is Role.INTERNAL
                and made.role is Role.OUTPUT
                and given.shape == made.shape
                and given.name not in names
            ):
                names[given.name] = made.name
    draft = Draft.of(network)
    for tensor in program.tensors:
        if tensor.role is Role.INTERNAL and tensor.name not in names:
            draft.add(tensor)
        elif tensor.name in names:
            draft.add(_as_output(tensor, names[tensor.name]))
    for operator in operators:
        inputs = tuple(names.get(name, name) for name in operator.inputs)
        outputs = tuple(names.get(name, name) for name in operator.outputs)
        if inputs != outputs:
            draft.append(msgspec.structs.replace(operator, inputs=inputs, outputs=outputs))
    return draft.network()


def _as_output(tensor: Tensor, name: str) -> Tensor:
    return msgspec.structs.replace(tensor, name=name, role=Role.OUTPUT)
