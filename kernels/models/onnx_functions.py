"""Operators that ONNX defines as functions of others: a node becomes the function's body.

The `onnx` package has the bodies, some of them only for the types of a node's inputs
(ONNX, "Open Neural Network Exchange Intermediate Representation", "Functions").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import defs

from kernels.models.onnx_file import name_of


def body(
    node: onnx.NodeProto, opset: int, types: Sequence[onnx.TypeProto]
) -> tuple[list[onnx.NodeProto], dict[str, int]] | None:
    """The nodes that compute what `node` does, and the opsets that they are of; None if there are none.

    `types` are those of its inputs, one that is not given without a type. Tensors inside have the
    node's name before theirs, as have the nodes. What no needed output is made of is left out.
    """
    try:
        schema = defs.get_schema(node.op_type, opset, node.domain)
    except defs.SchemaError:
        return None
    function = _function(schema, node, opset, types)
    if function is None:
        return None
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            given[name] = attribute.default_value
    given = {attribute.name: attribute for attribute in function.attribute_proto} | given
    prefix = name_of(node)
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
        read = [names.setdefault(name, f"{prefix}/{name}") for name in inner.input]
        needed.update(read)
        copy = onnx.NodeProto(
            op_type=inner.op_type,
            domain=inner.domain,
            name=f"{prefix}/{inner.name or inner.op_type}.{number}",
            input=read,
            output=made,
        )
        copy.attribute.extend(_resolved(inner.attribute, given))
        nodes.append(copy)
    return nodes[::-1], {each.domain: each.version for each in function.opset_import}


def _function(
    schema: Any, node: onnx.NodeProto, opset: int, types: Sequence[onnx.TypeProto]
) -> onnx.FunctionProto | None:
    """The newest definition that is not newer than the model."""
    made: bytes
    versions = [version for version in schema.function_opset_versions if version <= opset]
    contextual = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if versions:
        made = schema.get_function_with_opset_version(max(versions))
        return _parsed(made)
    if not contextual:
        return None
    made = schema.get_context_dependent_function_with_opset_version(
        max(contextual), node.SerializeToString(), [kind.SerializeToString() for kind in types]
    )
    return _parsed(made) if made else None


def _parsed(data: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(data)
    return function


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
