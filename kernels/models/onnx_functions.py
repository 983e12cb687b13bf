"""Nodes that stand for others: a function becomes its body, and a graph inside a node its nodes.

The `onnx` package has the bodies, some of them only for the types of a node's inputs
(ONNX, "Open Neural Network Exchange Intermediate Representation", "Functions").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import defs

from kernels.errors import InputError
from kernels.models.onnx_file import array_of, defaults


def body(
    node: onnx.NodeProto, opset: int, types: Sequence[onnx.TypeProto], prefix: str
) -> tuple[list[onnx.NodeProto], dict[str, int]] | None:
    """The nodes that compute what `node` does, and the opsets that they are of; None if there are none.

    `types` are those of its inputs, one that is not given without a type. Tensors inside have `prefix`
    before their names, as have the nodes. What no needed output is made of is left out.
    """
    try:
        schema = defs.get_schema(node.op_type, opset, node.domain)
    except defs.SchemaError:
        return None
    function = _function(schema, node, opset, types)
    if function is None:
        return None
    attributes = (*function.attribute_proto, *defaults(node, schema), *node.attribute)
    given = {attribute.name: attribute for attribute in attributes}
    inputs = [*node.input, *[""] * (len(function.input) - len(node.input))]
    outputs = [*node.output, *[""] * (len(function.output) - len(node.output))]
    names = {"": "", **dict(zip(function.input, inputs, strict=False))}
    names |= {own: made for own, made in zip(function.output, outputs, strict=False) if made}
    needed = set(filter(None, outputs))
    nodes: list[onnx.NodeProto] = []
    for number, inner in reversed(list(enumerate(function.node))):
        made = [names.setdefault(name, f"{prefix}/{name}") for name in inner.output]
        if needed.isdisjoint(made):
            continue
        needed.update(names.setdefault(name, f"{prefix}/{name}") for name in read_by(inner))
        copy = _renamed(inner, names, given)
        copy.name = f"{prefix}/{inner.name or inner.op_type}.{number}"
        nodes.append(copy)
    return nodes[::-1], {each.domain: each.version for each in function.opset_import}


def _function(
    schema: Any, node: onnx.NodeProto, opset: int, types: Sequence[onnx.TypeProto]
) -> onnx.FunctionProto | None:
    """The newest definition that is not newer than the model; or else the first one.

    ONNX gave some operators their functions after operators had come that those are made of.
    """
    made: bytes
    if schema.has_function:
        made = schema.get_function_with_opset_version(_version(schema.function_opset_versions, opset))
        return _parsed(made)
    if not schema.has_context_dependent_function:
        return None
    version = _version(schema.context_dependent_function_opset_versions, opset)
    made = schema.get_context_dependent_function_with_opset_version(
        version, node.SerializeToString(), [kind.SerializeToString() for kind in types]
    )
    return _parsed(made) if made else None


def _version(versions: Sequence[int], opset: int) -> int:
    return max((version for version in versions if version <= opset), default=min(versions))


def _parsed(data: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(data)
    return function


def contents(
    graph: onnx.GraphProto, prefix: str, inputs: Mapping[str, str]
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]], list[str]]:
    """The nodes of a node's graph, the constants that it brings, and what its outputs are named.

    `inputs` says what its inputs are. Tensors that it makes get the prefix before their names: other
    graphs, and other iterations, have the same names.
    """
    made = [name for inner in graph.node for name in inner.output if name]
    own = (*made, *(each.name for each in graph.initializer))
    names = {**inputs, **{name: f"{prefix}/{name}" for name in own}}
    nodes = []
    for number, inner in enumerate(graph.node):
        copy = _renamed(inner, names, {})
        copy.name = f"{prefix}/{inner.name or inner.op_type}.{number}"
        nodes.append(copy)
    try:
        constants = {names[each.name]: array_of(each) for each in graph.initializer}
    except InputError as error:
        raise InputError(f"an initializer of its graph: {error}") from error
    return nodes, constants, [names.get(each.name, each.name) for each in graph.output]


def read_by(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, in its graphs too."""
    return {*filter(None, node.input)}.union(
        *(_outer_names(each.g) for each in node.attribute if each.type == onnx.AttributeProto.GRAPH)
    )


def _outer_names(graph: onnx.GraphProto) -> set[str]:
    """The names that a node's graph reads from around it."""
    read = set().union(*(read_by(inner) for inner in graph.node), (each.name for each in graph.output))
    return read - _own_names(graph)


def _own_names(graph: onnx.GraphProto) -> set[str]:
    given = {each.name for each in (*graph.input, *graph.initializer)}
    return given.union(*(inner.output for inner in graph.node))


def _renamed(
    node: onnx.NodeProto, names: Mapping[str, str], given: Mapping[str, onnx.AttributeProto]
) -> onnx.NodeProto:
    """A copy under other names, attributes of the function around it with their values."""
    copy = onnx.NodeProto(
        op_type=node.op_type,
        domain=node.domain,
        name=node.name,
        input=[names.get(name, name) for name in node.input],
        output=[names.get(name, name) for name in node.output],
    )
    for attribute in _resolved(node.attribute, given):
        if attribute.type != onnx.AttributeProto.GRAPH:
            copy.attribute.append(attribute)
            continue
        graph = attribute.g
        own = _own_names(graph)
        outer = {name: other for name, other in names.items() if name not in own}
        inside = onnx.GraphProto()
        inside.CopyFrom(graph)
        del inside.node[:]
        inside.node.extend(_renamed(inner, outer, given) for inner in graph.node)
        for each in inside.output:
            each.name = outer.get(each.name, each.name)
        copy.attribute.append(onnx.AttributeProto(name=attribute.name, type=attribute.type, g=inside))
    return copy


def _resolved(
    attributes: Sequence[onnx.AttributeProto], given: Mapping[str, onnx.AttributeProto]
) -> list[onnx.AttributeProto]:
    """Attributes of a node inside, those that refer to the function's own with their values."""
    resolved = []
    for attribute in attributes:
        if not attribute.ref_attr_name:
            resolved.append(attribute)
        elif attribute.ref_attr_name in given:
            copy = onnx.AttributeProto()
            copy.CopyFrom(given[attribute.ref_attr_name])
            copy.name = attribute.name
            resolved.append(copy)
    return resolved
