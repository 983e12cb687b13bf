"""Nodes that TVM's importer is trusted with: those of an operator type whose tests pass through it.

Most operators have a family of their own in `kernels.operators`. A node that none of them takes
goes to TVM if the table below has its type, as an ONNX model of its own: plain data, which
`kernels.codegen` makes a kernel of and the reference evaluator of the onnx package judges.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from kernels.elements import element_of, numpy_type
from kernels.errors import InputError
from kernels.graph.memory import aligned
from kernels.models import onnx_file
from kernels.operators.base import Shape
from kernels.operators.node import Node
from kernels.program import ElementType, Tensor

Array = NDArray[Any]

LARGEST_CONSTANT = 64
"""Elements of an integer constant that is a part of the node, as axes and shapes are."""
ELEMENT = 4
"""Bytes of an element between two of TVM's functions, but for indices, which are few."""
IR_VERSION = 10
"""Of the format of a node's model."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an operator type: TVM's importer gets these nodes right.

    `tests` says which of ONNX's own tests passed through it: all whose names begin so. `types` are
    the element types that they had; halves are widened before the node and rounded behind it, if
    float32 is among them. `attributes` are the values that an attribute may have, and
    `limits` what integers of an input are below, by its number, from the shapes of all. Between TVM's
    functions lie at most `buffers` tensors of float32 for each operand, the result among them, each as
    large as the largest. A node of an opset before `since` is written as one of that, with the first of the
    `attributes` that it could not have.
    """

    tests: tuple[str, ...]
    buffers: int
    since: int = 0
    types: frozenset[ElementType] = frozenset((ElementType.FLOAT32,))
    attributes: Mapping[str, tuple[Any, ...]] = {}
    limits: Mapping[int, Callable[[Sequence[Shape]], int]] = {}


FLOAT = frozenset((ElementType.FLOAT32,))
TAIL: dict[str, Row] = {
    "RoiAlign": Row(
        tests=("test_roialign",),
        buffers=1,
        since=16,
        types=FLOAT | {ElementType.INT64},
        attributes={"mode": ("avg",), "coordinate_transformation_mode": ("output_half_pixel",)},
        limits={2: lambda shapes: shapes[0][0]},
    ),
}
"""What was tried and left out is told in docs/design.md."""


def take(node: Node, proto: onnx.NodeProto) -> tuple[Tensor, ...]:
    """The first output of a node of a type that the table has, by a kernel of its own.

    InputError says what about it is beyond the table.
    """
    row = TAIL[proto.op_type]
    if any(node.outputs[1:]):
        raise node.refuse("TVM's importer is trusted with its first output alone")
    for number, tensor in enumerate(node.inputs):
        if tensor is not None:
            _require(row, node, node.given(number))
    known = onnx.defs.get_schema(proto.op_type, node.opset).attributes
    for name, values in row.attributes.items():
        default = known[name].default_value if name in known else None
        given = node.attribute(name, onnx_file.plain(default) if default and default.name else values[0])
        if given not in values:
            shown = " and ".join(str(value) for value in values)
            raise node.refuse(f"{name} is {given}; TVM's importer is trusted with {shown}")
    return (_output(row, node, proto),)


def _require(row: Row, node: Node, tensor: Tensor) -> None:
    if _computed(tensor.dtype) not in row.types:
        known = ", ".join(sorted(row.types))
        raise node.refuse(
            f"'{tensor.name}' is of type {tensor.dtype}; TVM's importer is trusted with {known}"
        )


def _output(row: Row, node: Node, proto: onnx.NodeProto) -> Tensor:
    model, operands = _alone(row, node, proto)
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output[0]
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise node.refuse(" ".join(str(error).split())) from error
    model.graph.output[0].CopyFrom(inferred)
    given = inferred.type.tensor_type
    shape = tuple(dim.dim_value for dim in given.shape.dim)
    if not given.HasField("shape") or min(shape, default=1) < 1:
        raise node.refuse("the shape of its result depends on data")
    result = element_of(np.dtype(helper.tensor_dtype_to_np_dtype(given.elem_type)))
    if result is None:
        raise node.refuse("its result is of a type that is not supported")
    shapes = [tensor.shape for tensor in operands]
    below = [row.limits[place](shapes) if place in row.limits else 0 for place in range(len(shapes))]
    types = [_computed(tensor.dtype).value for tensor in operands]
    largest = max(prod(each) for each in (*shapes, shape))
    words = {
        "op": proto.op_type,
        "model": base64.b64encode(model.SerializeToString(deterministic=True)).decode("ascii"),
        "types": ",".join([*types, _computed(result).value]),
        "shape": shape,
        "below": tuple(below),
        "scratch": row.buffers * (len(shapes) + 1) * aligned(largest * ELEMENT),
    }
    return node.call("onnx", {f"x{place}": tensor for place, tensor in enumerate(operands)}, words)


def _computed(dtype: ElementType) -> ElementType:
    return ElementType.FLOAT32 if dtype.floating else dtype


def _alone(row: Row, node: Node, proto: onnx.NodeProto) -> tuple[onnx.ModelProto, list[Tensor]]:
    """The node as a model of its own, its first output being y, and what its inputs x0, x1, ... are.

    Integers that are few and constant, as axes are, are a part of it.
    """
    graph = onnx.GraphProto(name=proto.op_type)
    operands: list[Tensor] = []
    read = []
    for place, tensor in enumerate(node.inputs):
        if tensor is None:
            read.append("")
            continue
        value = node.value(place)
        kind = numpy_type(_computed(tensor.dtype))
        few = tensor.elements <= LARGEST_CONSTANT and not tensor.dtype.floating
        if value is not None and few:
            read.append(f"c{place}")
            graph.initializer.append(numpy_helper.from_array(value.astype(kind), read[-1]))
            continue
        read.append(f"x{len(operands)}")
        code = helper.np_dtype_to_tensor_dtype(kind)
        graph.input.append(helper.make_tensor_value_info(read[-1], code, tensor.shape))
        operands.append(tensor)
    copy = onnx.NodeProto(op_type=proto.op_type, input=read, output=["y"])
    copy.attribute.extend(proto.attribute)
    if node.opset < row.since:
        known = onnx.defs.get_schema(proto.op_type, node.opset).attributes
        missing = {name: values[0] for name, values in row.attributes.items() if name not in known}
        copy.attribute.extend(helper.make_attribute(name, value) for name, value in missing.items())
    graph.node.append(copy)
    graph.output.append(helper.make_empty_tensor_value_info("y"))
    opset = helper.make_opsetid("", max(node.opset, row.since))
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION), operands


def decoded(text: str) -> onnx.ModelProto:
    """The model that a kernel's attribute holds; InputError if it is none."""
    try:
        model = onnx.ModelProto()
        model.ParseFromString(base64.b64decode(text, validate=True))
    except (binascii.Error, DecodeError) as error:
        raise InputError("attributes.model is no ONNX model in base 64", key="attributes.model") from error
    return model


def evaluated(text: str, arrays: Mapping[str, Array]) -> Array:
    """What the node gives of operands by name, by ONNX's reference evaluator, with floats in float64."""
    wide = {
        name: array.astype(np.float64) if array.dtype.kind not in "iub" else array
        for name, array in arrays.items()
    }
    with np.errstate(all="ignore"):
        (value,) = ReferenceEvaluator(decoded(text)).run(None, wide)
    return np.asarray(value)
