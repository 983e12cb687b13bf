"""ONNX's tests as models of older opsets would have them: inputs of today may be attributes there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from kernels.models.onnx_file import OLDEST_OPSET
from tests.conformance.selection import Array, Case

KINDS = defs.OpSchema.AttrType
SPREAD = (7, 9, 11, 13, 15, 17, 18, 20)
"""Opsets that each operator is tried in, besides those that changed it: functions came in others."""
RENAMED = {"K": "k"}
"""Inputs that were attributes by another name."""
IR_VERSION = 8


def opsets(case: Case) -> list[int]:
    """The older opsets in which a test of one node is tried."""
    newest = case.model.opset_import[0].version
    schemas = (each for each in defs.get_all_schemas_with_history() if not each.domain)
    changed = {each.since_version for each in schemas if each.name == case.op}
    return [opset for opset in sorted({*SPREAD, *changed}) if OLDEST_OPSET <= opset < newest]


def older(case: Case, opset: int) -> onnx.ModelProto | None:
    """The test's model in an older opset; None where its node cannot be written in it."""
    try:
        schema = defs.get_schema(case.op, opset)
    except defs.SchemaError:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.opset_import[0].version = opset
    model.ir_version = min(model.ir_version, IR_VERSION)
    (node,) = model.graph.node
    if schema.deprecated or len(node.output) > len(schema.outputs):
        return None
    moved = list(_moved(case, schema, node))
    if None in moved:
        return None
    kept = [each for each in (*node.attribute, *filter(None, moved)) if each.name in schema.attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    _drop_unread(model.graph)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def _moved(case: Case, schema: defs.OpSchema, node: onnx.NodeProto) -> Iterator[onnx.AttributeProto | None]:
    """Inputs that the older node has not, as attributes; None for one that is not constant, or unknown."""
    variadic = defs.OpSchema.FormalParameterOption.Variadic
    if schema.inputs and schema.inputs[-1].option == variadic:
        return
    newest = defs.get_schema(node.op_type, case.model.opset_import[0].version)
    constants = {each.name: numpy_helper.to_array(each) for each in case.model.graph.initializer}
    for number in range(len(schema.inputs), len(node.input)):
        name = node.input[number]
        if name:
            key = newest.inputs[number].name
            key, value = RENAMED.get(key, key), {**case.inputs, **constants}.get(name)
            known = value is not None and key in schema.attributes
            yield (
                _attribute(key, value, schema.attributes[key].type) if known and value is not None else None
            )
    del node.input[len(schema.inputs) :]
    while node.input and not node.input[-1]:
        del node.input[-1]


def _attribute(name: str, value: Array, kind: KINDS) -> onnx.AttributeProto:
    numbers = value.ravel().tolist()
    if kind in (KINDS.INT, KINDS.FLOAT):
        return helper.make_attribute(name, numbers[0])
    lists = {KINDS.INTS: onnx.AttributeProto.INTS, KINDS.FLOATS: onnx.AttributeProto.FLOATS}
    return helper.make_attribute(name, numbers, attr_type=lists[kind])


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for values in (graph.input, graph.initializer):
        kept = [each for each in values if each.name in read]
        del values[:]
        values.extend(kept)


def agree(found: Array, wanted: Array) -> bool:
    """Whether two results are the same but for roundings, of halves a thousandth."""
    half = wanted.dtype.kind == "V" or wanted.dtype.itemsize == np.float16().itemsize
    due = wanted.astype(np.float64)
    scale = float(np.abs(due[np.isfinite(due)]).max(initial=0.0)) if wanted.dtype.kind == "f" else 0.0
    got = np.asarray(found, np.float64).reshape(due.shape)
    return np.allclose(
        got, due, rtol=1e-2 if half else 2e-3, atol=(2e-3 if half else 2e-5) * scale, equal_nan=True
    )
