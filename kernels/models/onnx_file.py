"""ONNX files: read with limits, checked, and made static, before anything is made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import checker, defs, external_data_helper, helper, inliner, numpy_helper, shape_inference

from kernels.errors import InputError, did_you_mean

Array = NDArray[Any]

LARGEST_FILE = (1 << 31) - 1
"""Bytes: protobuf reads no more."""
OLDEST_OPSET = 7
MOST_LISTED = 5
ONNX_DOMAIN = "ai.onnx"
CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""
STRAY = ("LayerNormalization", "SimplifiedLayerNormalization")
"""Those that it writes into ONNX's domain, where ONNX has them not, or not yet."""
EQUATION = re.compile(rb"[A-Za-z.,> -]*")
"""Of other signs ONNX's inference never comes to an end (onnx 1.23)."""
WHOLE = {
    onnx.TensorProto.INT32: (-(1 << 31), (1 << 31) - 1),
    onnx.TensorProto.INT64: (-(1 << 63), (1 << 63) - 1),
    onnx.TensorProto.BOOL: (0, 1),
}
"""Types of inputs that can be fixed, each with its least and largest value."""
LARGE = 1 << 12
"""Elements of a weight that is kept apart; shapes and axes are smaller."""


def load(path: Path, dims: Mapping[str, int]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The checked model, functions inlined and inputs static, and its large weights apart.

    InputError names file and fault.

    Weights that lie in files of their own are read; those must be in the model's folder.
    """
    model = _parse(path)
    _one_domain(model)
    _opsets(path, model)
    _sizes(path, model.graph.initializer)
    _inputs(path, model)
    _order(path, model)
    _external(path, model)
    weights = _taken_out(path, model)
    _check(path, model)
    if model.functions:
        model = inliner.inline_local_functions(model)
    _bind(path, model, dims, set(weights))
    _write_out(model)
    _infer(path, model)
    return model, weights


def fixed_inputs(model: onnx.ModelProto, dims: Mapping[str, int]) -> dict[str, Array]:
    """Inputs of one whole number that `dims` names, and so gives a value for good.

    InputError where the number is none of the input's type.
    """
    found = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name not in dims or kind.elem_type not in WHOLE:
            continue
        if all(dim.dim_value == 1 for dim in kind.shape.dim):
            least, most = WHOLE[kind.elem_type]
            if not least <= dims[value.name] <= most:
                raise InputError(f"the value {dims[value.name]} of input '{value.name}' is not in its type")
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found[value.name] = np.full([1] * len(kind.shape.dim), dims[value.name], dtype)
    return found


def _parse(path: Path) -> onnx.ModelProto:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(
                f"{path}: larger than 2 GiB; keep its weights in files beside it (external data)"
            )
        model = onnx.ModelProto()
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"{path}: no ONNX model, or a truncated one") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{path}: no ONNX model, for it has no graph")
    _readable(path, model)
    return model


def _readable(path: Path, model: onnx.ModelProto) -> None:
    """Refuse, wherever it stands, text that is none, and what ONNX's inference makes no end of."""
    messages: list[Message] = [model]
    while messages:
        message = messages.pop()
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                messages += [value] if isinstance(value, Message) else value
            elif field.type == FieldDescriptor.TYPE_STRING:
                for text in [value] if isinstance(value, str | bytes) else value:
                    if not isinstance(text, str):  # protobuf gives bytes then
                        raise InputError(f"{path}: {text!r:.80} stands where UTF-8 belongs")
        equation = isinstance(message, onnx.AttributeProto) and message.name == "equation"
        if equation and not EQUATION.fullmatch(message.s):
            raise InputError(f"{path}: {message.s!r:.80} is no equation of Einsum's")


def _dim(value: onnx.ValueInfoProto, axis: int, dim: onnx.TensorShapeProto.Dimension) -> str:
    """What an open dimension is called: by its name, or else by the input's and a number."""
    named = re.search(r"\w", dim.dim_param)  # some exporters write ? for every one that they do not know
    return dim.dim_param if named else f"{value.name}.{axis}"


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether it has no size; some exporters write -1."""
    return not dim.HasField("dim_value") or dim.dim_value == -1


def name_of(node: onnx.NodeProto) -> str:
    """What errors call a node: its name, or else that of its first output."""
    return str(node.name or next((name for name in node.output if name), "?"))


def array_of(tensor: onnx.TensorProto) -> Array:
    """The numbers that a tensor holds; InputError if they are not what it says."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InputError("its values are in another file, where only an initializer's may be")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a tensor does not hold what it says: {error}") from error


def plain(attribute: onnx.AttributeProto) -> Any:
    """An attribute's value as numbers, text, tuples or an array."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return array_of(value)
    if isinstance(value, list) or attribute.type in LISTS:
        return tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in value)
    return value


LISTS = (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS)


def _check(path: Path, model: onnx.ModelProto) -> None:
    """What the onnx package finds wrong; but outputs may be without a shape, which it would refuse."""
    bare = [
        value.type.tensor_type
        for value in model.graph.output
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    ]
    for kind in bare:
        kind.shape.SetInParent()
    try:
        checker.check_model(model)
    except (checker.ValidationError, RuntimeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {_line(error)}") from error
    for kind in bare:
        kind.ClearField("shape")


def _one_domain(model: onnx.ModelProto) -> None:
    """ONNX's own operators have two names for their domain; from here on it is the empty one."""
    owners = (model, *model.functions)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for opset in (opset for owner in owners for opset in owner.opset_import):
        opset.domain = "" if opset.domain == ONNX_DOMAIN else opset.domain
    opset = max((each.version for each in model.opset_import if not each.domain), default=0)
    for owner in owners:
        if CONTRIB not in {each.domain for each in owner.opset_import}:
            owner.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    while nodes:
        node = nodes.pop()
        node.domain = "" if node.domain == ONNX_DOMAIN else node.domain
        if node.op_type in STRAY and not node.domain and not defs.has(node.op_type, opset):
            node.domain = CONTRIB
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                nodes.extend(attribute.g.node)


def _opsets(path: Path, model: onnx.ModelProto) -> None:
    for opset in model.opset_import:
        newest = onnx.defs.onnx_opset_version()
        if not opset.domain and not OLDEST_OPSET <= opset.version <= newest:
            raise InputError(f"{path}: opset {opset.version}; opsets {OLDEST_OPSET} to {newest} are known")


def _sizes(path: Path, tensors: Iterable[onnx.TensorProto]) -> None:
    """No initialiser may claim more than it holds: its memory would be taken before that is noticed."""
    for tensor in tensors:
        if min(tensor.dims, default=1) < 0:
            raise InputError(f"{path}: initializer '{tensor.name}' has the shape {list(tensor.dims)}")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        claimed, held = prod(tensor.dims), tensor.ByteSize()
        # Packed numbers take half a byte at least, each of them.
        if claimed > 2 * held:
            raise InputError(
                f"{path}: initializer '{tensor.name}' claims {claimed} elements and holds {held} bytes"
            )


def _inputs(path: Path, model: onnx.ModelProto) -> None:
    """Every input is a tensor of a known number of dimensions."""
    held = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        kind = value.type.WhichOneof("value")
        if kind not in ("tensor_type", None):
            what = kind.removesuffix("_type").replace("_", " ")
            raise InputError(f"{path}: input '{value.name}' is a {what}, and not a tensor")
        if value.name not in held and not value.type.tensor_type.HasField("shape"):
            raise InputError(f"{path}: input '{value.name}' is no tensor of a known number of dimensions")


def _order(path: Path, model: onnx.ModelProto) -> None:
    """Every node reads what is there by then; a cycle cannot satisfy that."""
    graph = model.graph
    known = {"", *(value.name for value in graph.input), *(value.name for value in graph.initializer)}
    known.update(value.values.name for value in graph.sparse_initializer)
    later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                where = f"{path}: node '{name_of(node)}' ({node.op_type}) reads '{name}'"
                if name in later:
                    raise InputError(f"{where} before it is computed: the graph has a cycle or no order")
                raise InputError(f"{where}, which nothing computes")
        known.update(node.output)
    for value in graph.output:
        if value.name not in known:
            raise InputError(f"{path}: nothing computes the output '{value.name}'")


def _external(path: Path, model: onnx.ModelProto) -> None:
    """Read weights from files in the model's own folder, and from nowhere else."""
    folder = path.parent.resolve()
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        given = {entry.key: entry.value for entry in tensor.external_data}
        place = (folder / given.get("location", "")).resolve()
        if not place.is_relative_to(folder) or not place.is_file():
            raise InputError(
                f"{path}: weights of '{tensor.name}' are to be in '{given.get('location', '')}', "
                "which is no file in the model's folder"
            )
        size = _bytes(path, tensor)
        offset, length = (_whole(given.get(key, "")) for key in ("offset", "length"))
        fits = 0 <= offset <= place.stat().st_size - size and length in (0, size)
        if not fits:
            raise InputError(f"{path}: '{place.name}' does not hold the {size} bytes of '{tensor.name}'")
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files beside a model that hold its weights, sorted."""
    model = _parse(path)
    locations = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(path.parent / location for location in locations))


def _whole(text: str) -> int:
    """A number in an external tensor's description; 0 where there is none, -1 where it is none."""
    return int(text) if text.isdecimal() else -bool(text)


def _taken_out(path: Path, model: onnx.ModelProto) -> dict[str, Array]:
    """Large weights, which become inputs: checks and inference would copy each several times."""
    graph = model.graph
    declared = {value.name for value in graph.input}
    taken: dict[str, Array] = {}
    kept = []
    for tensor in graph.initializer:
        if prod(tensor.dims) < LARGE:
            kept.append(tensor)
            continue
        try:
            taken[tensor.name] = array_of(tensor)
        except InputError as error:
            raise InputError(f"{path}: initializer '{tensor.name}': {error}") from error
        if tensor.name not in declared:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    copies = [onnx.TensorProto.FromString(each.SerializeToString()) for each in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return taken


def _bytes(path: Path, tensor: onnx.TensorProto) -> int:
    try:
        element = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError as error:
        raise InputError(f"{path}: '{tensor.name}' is of an unknown element type") from error
    return int(prod(tensor.dims) * element)


def _bind(path: Path, model: onnx.ModelProto, dims: Mapping[str, int], held: set[str]) -> None:
    """Give the dynamic dimensions of inputs their sizes; InputError names those that have none.

    Inputs of one whole number that `dims` names become constants. `held` are weights, which are no inputs.
    """
    try:
        fixed = fixed_inputs(model, dims)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in fixed.items())
    held = held | {tensor.name for tensor in model.graph.initializer}
    unknown: dict[str, list[onnx.TensorShapeProto.Dimension]] = {}
    for value in model.graph.input:
        if value.name not in held:
            for name, dim in _unknown(path, value):
                unknown.setdefault(name, []).append(dim)
    missing = [name for name in unknown if name not in dims]
    if missing:
        flags = " ".join(f"--dim {name}=..." for name in missing[:MOST_LISTED])
        raise InputError(f"{path}: {len(missing)} dimensions of its inputs are dynamic; say {flags}")
    for name, size in dims.items():
        if name not in unknown and name not in fixed:
            raise InputError(f"{path}: no dynamic dimension '{name}'{did_you_mean(name, unknown)}")
        if name in unknown and size < 1:
            raise InputError(f"{path}: the size {size} of dimension '{name}'; the least is 1")
        for dim in unknown.get(name, ()):
            dim.dim_value = size
    _forget(model.graph, whole=bool(dims))


def _forget(graph: onnx.GraphProto, *, whole: bool) -> None:
    """What a graph and those inside it say of shapes that are open, to be inferred again.

    With `whole` all that is said of outputs: some exporters write that of one size alone.
    """
    del graph.value_info[:]
    for value in graph.output:
        output = value.type.tensor_type
        if whole:
            output.ClearField("shape")
        for dim in output.shape.dim:
            if _is_open(dim):
                dim.Clear()
    for inner in (each.g for node in graph.node for each in node.attribute if each.HasField("g")):
        for value in inner.input:
            value.type.tensor_type.ClearField("shape")
        _forget(inner, whole=True)


def _unknown(path: Path, value: onnx.ValueInfoProto) -> list[tuple[str, onnx.TensorShapeProto.Dimension]]:
    """The dimensions of an input that have no size, and what they are called."""
    found = []
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if _is_open(dim):
            found.append((_dim(value, axis, dim), dim))
        elif dim.dim_value < 0:
            raise InputError(f"{path}: input '{value.name}' has the extent {dim.dim_value}")
    return found


def _write_out(model: onnx.ModelProto) -> None:
    """Give nodes with a function their defaults: ONNX infers through its body, which lacks them."""
    opset = max((each.version for each in model.opset_import if not each.domain), default=0)
    for node in model.graph.node:
        if not node.domain and defs.has(node.op_type, opset):
            schema: Any = defs.get_schema(node.op_type, opset)
            if schema.has_function:
                node.attribute.extend(defaults(node, schema))


def _infer(path: Path, model: onnx.ModelProto) -> None:
    """Shapes and types as ONNX infers them must not contradict each other.

    But for ceil_mode: onnx 1.23 counts windows that begin in the padding behind the image,
    which its own definition leaves out, as onnxruntime does; and for STFT, of which it takes both
    sides where its definition has one by default. Contents of tensors are not followed: that takes it
    140 bytes for each element of a vector.
    """
    if any(node.op_type == "STFT" for node in model.graph.node):
        return
    if any(each.name == "ceil_mode" and each.i for node in model.graph.node for each in node.attribute):
        return
    try:
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {_line(error)}") from error


def defaults(node: onnx.NodeProto, schema: Any) -> list[onnx.AttributeProto]:
    """The attributes that a node leaves at their defaults."""
    given = {attribute.name for attribute in node.attribute}
    return [
        attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in given and attribute.default_value.type
    ]


def _line(error: Exception) -> str:
    """The first telling line of an error of the onnx package, without its internals."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    text = re.sub(r"\[?[A-Za-z]*InferenceError\]?:? ?", "", text)
    text = re.sub(r"^Inference error\(s\): ?", "", text)
    text = re.sub(r"^\(op_type:(\w+), node name: ([^)]*)\):", r"node '\2' (\1):", text)
    return text[:300]
