"""Nodes whose inputs are all known are computed when the model is read.

Floating-point numbers only by moving them and by correctly rounded element-wise
arithmetic, for a library's bytes must not depend on the processor that builds it; whole
numbers and truth values by anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

from kernels.errors import InputError
from kernels.models.onnx_file import array_of

Array = NDArray[Any]

LARGEST = 1 << 28
"""Elements of a result: a model of few bytes must not take all memory."""
MOVING = frozenset(
    [
        "Cast",
        "CastLike",
        "Compress",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
        "EyeLike",
        "OneHot",
        "NonZero",
        "Shape",
        "Size",
        "Range",
        "ReverseSequence",
    ]
)
"""What moves, chooses or rounds elements, one by one."""
EXACT: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Sqrt": np.sqrt,
    "Neg": np.negative,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Relu": lambda x: np.where(x < 0, x.dtype.type(0), x),
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "LessOrEqual": np.less_equal,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Not": np.logical_not,
    "Max": lambda *x: functools.reduce(np.maximum, x),
    "Min": lambda *x: functools.reduce(np.minimum, x),
    "Sum": lambda *x: functools.reduce(np.add, x),
}
"""Correctly rounded in NumPy, whatever the processor."""


GROWING: Mapping[str, Callable[..., Any]] = {
    "Concat": lambda *x: [sum(value.size for value in x)],
    "Expand": lambda x, shape: np.broadcast_shapes(x.shape, tuple(int(extent) for extent in shape)),
    "Gather": lambda x, indices: [x.size, indices.size],
    "OneHot": lambda indices, depth, _: [indices.size, int(depth)],
    "Pad": lambda x, pads, *_: [extent + int(abs(pads).max(initial=0)) * 2 for extent in x.shape],
    "Range": lambda first, last, step: [max(0, int((last - first) // step) if step else 0)],
    "Tile": lambda x, counts: [x.size, *(int(count) for count in counts)],
}
"""What can give more elements than it takes, with a shape that is no smaller than the result's."""


def constant(node: onnx.NodeProto) -> Array | None:
    """The value of a Constant node; None if it is no tensor of numbers."""
    (given,) = node.attribute
    value = helper.get_attribute_value(given)
    if given.name == "value":
        return array_of(value)
    kinds = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    return np.asarray(value, dtype=kinds[given.name]) if given.name in kinds else None


def fold(node: onnx.NodeProto, inputs: Sequence[Array | None], opset: int) -> tuple[Array, ...] | None:
    """The results of a node of known inputs, or None where it is not to be folded."""
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    arrays = [value for value in inputs if value is not None]
    if op == "Constant":
        value = constant(node)
        return None if value is None else (value,)
    if op == "ConstantOfShape":
        (shape,) = arrays
        _bounded([int(extent) for extent in shape])
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("value")
        fill = np.zeros(1, np.float32) if given is None else array_of(given)
        return (np.full(tuple(int(extent) for extent in shape), fill.ravel()[0], fill.dtype),)
    empty = bool(arrays) and not arrays[0].size  # so that nothing is summed up in some order
    if empty:
        _bounded([extent for extent in arrays[0].shape if extent])
    real = not empty and any(value.dtype.kind not in "iub" for value in arrays)
    if op in EXACT:
        if op not in ("Not", "Neg", "Abs", "Sqrt", "Floor", "Ceil", "Round", "Relu"):
            _bounded(np.broadcast_shapes(*(value.shape for value in arrays)))
        with np.errstate(all="ignore"):
            return (np.asarray(EXACT[op](*arrays)),)
    if op == "Div" and real:
        with np.errstate(all="ignore"):
            return (np.divide(*arrays),)
    if op not in MOVING and (real or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)):
        return None
    if op == "Range":  # ONNX's own function of AffineGrid gives its ends as rows of one number
        inputs = arrays = [value.reshape(()) if value.size == 1 else value for value in arrays]
    if op in GROWING:
        _bounded([int(extent) for extent in GROWING[op](*arrays)])
    return _evaluate(node, inputs, opset)


def without_elements(
    node: onnx.NodeProto, inputs: Sequence[Array | None], types: Sequence[onnx.TypeProto], opset: int
) -> tuple[Array, ...] | None:
    """The results of a node that has an input without elements, if they have none either.

    `inputs` are those whose values are known. What has no elements is known by its shape.
    """
    if all(value is None or value.size for value in inputs) or not onnx.defs.has(node.op_type, node.domain):
        return None
    given = dict(zip(node.input, types, strict=True))
    data = {
        name: onnx.numpy_helper.from_array(value, name)
        for name, value in zip(node.input, inputs, strict=True)
        if name and value is not None and value.dtype.kind in "iu"
    }
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    opsets = [helper.make_opsetid(node.domain, opset)]
    try:
        found = infer_node_outputs(schema, node, given, data, opset_imports=opsets)
    except (InferenceError, RuntimeError, ValueError) as error:
        raise InputError(f"its inputs, of which one has no elements, do not fit: {error}") from error
    results = [found[name].tensor_type for name in node.output if name in found]
    shapes = [tuple(dim.dim_value for dim in kind.shape.dim) for kind in results]
    known = all(dim.HasField("dim_value") for kind in results for dim in kind.shape.dim)
    if not known or len(results) != sum(map(bool, node.output)) or not all(0 in shape for shape in shapes):
        return None
    made = (
        nothing(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
        for kind, shape in zip(results, shapes, strict=True)
    )
    return tuple(next(made) if name else np.zeros(0) for name in node.output)


def nothing(shape: Sequence[int], dtype: DTypeLike) -> Array:
    """The value of a tensor without elements; InputError where a reduction of it could be too large."""
    _bounded([extent for extent in shape if extent])
    return np.zeros(tuple(shape), dtype)


def _bounded(shape: Sequence[int]) -> None:
    if min(shape, default=0) < 0 or prod(int(extent) for extent in shape) > LARGEST:
        raise InputError(f"a constant of shape {[int(extent) for extent in shape]} is too large")


def _evaluate(node: onnx.NodeProto, inputs: Sequence[Array | None], opset: int) -> tuple[Array, ...] | None:
    """By the reference evaluator of the onnx package."""
    given = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    model = helper.make_model(
        helper.make_graph([node], "fold", values, outputs),
        opset_imports=[helper.make_opsetid(node.domain, opset)],
    )
    try:
        with np.errstate(all="ignore"):
            found = iter(ReferenceEvaluator(model).run(None, given))
    except (NotImplementedError, RuntimeError, TypeError):
        return None
    except (AttributeError, IndexError, ValueError) as error:
        raise InputError(f"its constant inputs do not fit: {error}") from error
    return tuple(np.asarray(next(found)) if name else np.zeros(0) for name in node.output)
