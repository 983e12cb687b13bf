"""ONNX models, read into Networks: every node by the family of operators that knows its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kernels.elements import element_of, numpy_type
from kernels.errors import InputError
from kernels.graph.draft import Draft
from kernels.models import (
    contrib,
    onnx_constants,
    onnx_control,
    onnx_file,
    onnx_functions,
    onnx_sequences,
    onnx_tail,
)
from kernels.models.onnx_beyond import BEYOND, DOMAINS
from kernels.models.onnx_view import View
from kernels.names import identifier
from kernels.operators import importers
from kernels.operators.node import Importer
from kernels.program import ElementType, Network, Operator, Role, Tensor

Array = NDArray[Any]


UNFIT = (
    *(ArithmeticError, AssertionError, LookupError, MemoryError, TypeError, ValueError),
    *(onnx.checker.ValidationError, onnx.defs.SchemaError),
)
"""What is raised where a node's inputs or attributes are not what its definition says."""


def unfit(error: Exception) -> InputError:
    """Such an error, told."""
    return InputError(f"what it is given does not fit: {type(error).__name__}: {error}")


MOST_ELEMENTS = 1 << 30
"""Of all constants that are computed, for memory that a small file may take."""


def read_onnx(path: Path, dims: Mapping[str, int] | None = None) -> Network:
    """The Network of an ONNX file, node by node, with all that is constant computed.

    `dims` gives dynamic dimensions their sizes, and inputs of one whole number a value for good.
    InputError names the file, and the node.
    """
    model, weights = onnx_file.load(path, dims or {})
    producer = f"{model.producer_name} {model.producer_version}".strip()
    source = f"{path.name}{f', by {producer}' if producer else ''}"
    draft = Draft(identifier(path.stem), source, dims)
    walk = Walk(path, model, weights, draft)
    for node in model.graph.node:
        walk.take(node)
    walk.finish()
    return draft.network()


class Walk:
    """What each of the model's names is by now: a tensor of the draft, or a value."""

    def __init__(
        self, path: Path, model: onnx.ModelProto, weights: Mapping[str, Array], draft: Draft
    ) -> None:
        """Take inputs and initialisers in, `weights` among them."""
        self._path, self._model, self.draft = path, model, draft
        self._opsets = {opset.domain: opset.version for opset in model.opset_import}
        self._read = {name for node in model.graph.node for name in onnx_functions.read_by(node)}
        self._read |= {value.name for value in model.graph.output}
        draft.reserved.update(value.name for value in model.graph.output)
        self._elements = 0
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Array] = dict(weights)
        self.sequences: dict[str, tuple[str, ...]] = {}
        self.written = 0
        for tensor in model.graph.initializer:
            try:
                self.values[tensor.name] = onnx_file.array_of(tensor)
            except InputError as error:
                raise InputError(f"{path}: initializer '{tensor.name}': {error}") from error
        for value in model.graph.input:
            if value.name not in self.values:
                self._input(value)

    def _input(self, value: onnx.ValueInfoProto) -> None:
        given = value.type.tensor_type
        dtype = element_type(given.elem_type)
        if dtype is None:
            known = given.elem_type in onnx.TensorProto.DataType.values()
            kind = onnx.TensorProto.DataType.Name(given.elem_type).lower() if known else "unknown"
            raise InputError(
                f"{self._path}: input '{value.name}' is of type {kind}, which is not supported"
            )
        shape = tuple(dim.dim_value for dim in given.shape.dim)
        tensor = self.draft.add(Tensor(name=value.name, shape=shape, role=Role.INPUT, dtype=dtype))
        if tensor.elements:
            self.tensors[value.name] = tensor
            return
        try:
            self.values[value.name] = onnx_constants.nothing(shape, numpy_type(dtype))
        except InputError as error:
            raise InputError(f"{self._path}: input '{value.name}': {error}") from error

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name; a value becomes one when it is first asked for."""
        if name in self.sequences:
            raise InputError(f"'{name}' is a sequence, where a tensor is due")
        if name not in self.tensors:
            if name not in self.values:
                raise InputError(f"nothing computes '{name}'")
            value = self.values[name]
            if element_of(value.dtype) is None:
                raise InputError(f"'{name}' is constant and of type {value.dtype}, which is not supported")
            self.tensors[name] = self.draft.constant(name, value)
        return self.tensors[name]

    def take(self, node: onnx.NodeProto) -> None:
        """Compute a node, or turn it into our operators."""
        try:
            self._take(node, self._opsets)
        except InputError as error:
            where = f"node '{onnx_file.name_of(node)}' ({node.op_type})"
            raise InputError(f"{self._path}: {where}: {error}") from error

    def _take(self, node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
        """Compute it, or import it, or else what its function is made of."""
        referring = [each for each in node.attribute if each.ref_attr_name]
        if referring:
            what = f"attribute '{referring[0].name}' refers to a function's '{referring[0].ref_attr_name}'"
            raise InputError(f"{what}, but this node is in none")
        opset = opsets.get(node.domain, 0)
        if self._taken_apart(node, opsets) or self._contributed(node):
            return
        first = len(self.draft.operators)
        try:
            outputs: Sequence[Tensor | Array] = self._fitting(node, opset)
        except InputError as error:
            self.draft.forget(first)
            outputs = self._otherwise(node, opset, error)
        for name, output in zip(node.output, outputs, strict=False):
            if not isinstance(output, Tensor):
                self.know(name, output)
            elif output.elements:
                self._forget(name)
                self.tensors[name] = output
            else:  # what has no elements is known
                self.know(name, onnx_constants.nothing(output.shape, numpy_type(output.dtype)))

    def _taken_apart(self, node: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
        """Whether it is a node that only says which others compute what; it is taken then."""
        control = None if node.domain else onnx_control.HANDLERS.get(node.op_type)
        naming = onnx_sequences.handler(self, node)
        try:
            if control is not None:
                control(self, node, opsets)
            elif naming is not None:
                naming(self, node)
        except UNFIT as error:
            raise unfit(error) from error
        return control is not None or naming is not None

    def _contributed(self, node: onnx.NodeProto) -> bool:
        """Whether it is an operator of onnxruntime's; the nodes that it stands for are taken then."""
        if node.domain != onnx_file.CONTRIB or node.op_type not in contrib.FUNCTIONS:
            return False
        types = [self._type(name) for name in node.input]
        try:
            written = contrib.body(node, types, self.space(onnx_file.name_of(node)))
        except UNFIT as error:
            raise unfit(error) from error
        self.take_inside(*written, "function")
        return True

    def alias(self, name: str, other: str) -> None:
        """Make a name mean what another one means."""
        if other not in self.sequences and other not in self.values:
            self.tensor(other)
        found = [(book, book[other]) for book in self._books() if other in book]
        self._forget(name)
        for book, value in found:
            book[name] = value

    @cached_property
    def _spaces(self) -> set[str]:
        """What names of the model's own tensors begin with, up to a sign that parts names."""
        graph = self._model.graph
        made = (name for node in graph.node for name in (*node.output, *onnx_functions.read_by(node)))
        names = (*made, *(value.name for value in (*graph.input, *graph.output)))
        return {name[:at] for name in names for at in _ends(name)}

    def space(self, base: str) -> str:
        """What names of tensors begin with that are put between the model's own: `base`, or more."""
        while base in self._spaces:
            base += "'"
        return base

    def _books(self) -> Sequence[dict[str, Any]]:
        return self.tensors, self.values, self.sequences

    def _forget(self, name: str) -> None:
        """A name in the functions of two nodes that are named alike means what came last."""
        for book in self._books():
            book.pop(name, None)

    def know(self, name: str, value: Array) -> None:
        """Give a name a value."""
        self._forget(name)
        self.values[name] = value

    def need(self, names: Sequence[str]) -> None:
        """Say that these will be read."""
        self._read.update(names)

    def _fitting(self, node: onnx.NodeProto, opset: int) -> Sequence[Tensor | Array]:
        """Its outputs; InputError where what it is given contradicts its definition."""
        try:
            return self._outputs(node, opset)
        except UNFIT as error:
            raise unfit(error) from error

    def _otherwise(self, node: onnx.NodeProto, opset: int, why: InputError) -> Sequence[Tensor]:
        """By TVM's importer, where that is trusted; else by its function, whose nodes make the outputs."""
        first = len(self.draft.operators)
        outputs: Sequence[Tensor] = ()
        try:
            if node.op_type in onnx_tail.TAIL and not node.domain:
                outputs = self._imported(node, opset, lambda view: onnx_tail.take(view, node))
        except InputError as refusal:
            self.draft.forget(first)
            why = InputError(f"{why}; {refusal}")
        if outputs:
            return outputs
        types = [self._type(name) for name in node.input]
        function = onnx_functions.body(node, opset, types, self.space(onnx_file.name_of(node)))
        if function is None:
            raise why
        self._expand(*function, why=why)
        return ()

    def _expand(self, nodes: Sequence[onnx.NodeProto], opsets: Mapping[str, int], why: InputError) -> None:
        """Take the nodes of a function's body; an error names the one inside, and why it came to that."""
        try:
            self.take_inside(nodes, opsets, "function")
        except InputError as error:
            raise InputError(f"{why}; {error}") from error

    def take_inside(self, nodes: Sequence[onnx.NodeProto], opsets: Mapping[str, int], where: str) -> None:
        """Take the nodes of a node's function, branch or body; an error names the one inside."""
        self._read |= {name for node in nodes for name in onnx_functions.read_by(node)}
        for node in nodes:
            try:
                self._take(node, opsets)
            except InputError as error:
                inside = f"{node.op_type} of its {where} ('{onnx_file.name_of(node)}')"
                raise InputError(f"{inside}: {error}") from error

    def _type(self, name: str) -> onnx.TypeProto:
        """What ONNX calls the type of an input."""
        if not name:
            return onnx.TypeProto()
        if name in self.values:
            value = self.values[name]
            return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        tensor = self.tensor(name)
        return helper.make_tensor_type_proto(NUMBERS[tensor.dtype], tensor.shape)

    def _outputs(self, node: onnx.NodeProto, opset: int) -> Sequence[Tensor | Array]:
        if node.op_type in ("Shape", "Size") and not node.domain and node.input[0] in self.tensors:
            return (self._shape(node),)
        known = [self.values.get(name) for name in node.input]
        if all(value is not None or not name for name, value in zip(node.input, known, strict=True)):
            folded = onnx_constants.fold(node, known, opset)
            if folded is not None:
                self.count(sum(value.size for value in folded))
                return folded
        beyond = (DOMAINS if node.domain else BEYOND).get(node.domain or node.op_type, "")
        if beyond and any(each.type == onnx.AttributeProto.GRAPH for each in node.attribute):
            raise InputError(beyond)
        nothing = onnx_constants.without_elements(node, known, [self._type(n) for n in node.input], opset)
        if nothing is not None:
            return nothing
        importer = None if node.domain else importers().get(node.op_type)
        if importer is None and beyond:
            raise InputError(beyond)
        if importer is None:
            domain = f" of the domain '{node.domain}'" if node.domain else ""
            raise InputError(f"kernfit has no operator for this type{domain}, nor can compute it ahead")
        return self._imported(node, opset, importer)

    def count(self, elements: int) -> None:
        """Say that so many are computed ahead; InputError where they become too many."""
        self._elements += elements
        if self._elements > MOST_ELEMENTS:
            raise InputError(f"more than {MOST_ELEMENTS} elements of constants are computed ahead")

    def _imported(self, node: onnx.NodeProto, opset: int, importer: Importer) -> Sequence[Tensor]:
        """What an importer makes of a node, under the model's own names."""
        view = View(self, node, opset, tuple(name if name in self._read else "" for name in node.output))
        outputs = importer(view)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return view.settled(outputs, node.output)

    def _shape(self, node: onnx.NodeProto) -> Array:
        tensor = self.tensors[node.input[0]]
        if node.op_type == "Size":
            return np.array(tensor.elements, np.int64)
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return np.array(tensor.shape, np.int64)[given.get("start", 0) : given.get("end", len(tensor.shape))]

    def finish(self) -> None:
        """Give each output of the model its name, by a reshaping, which passes turn into nothing."""
        for value in self._model.graph.output:
            name = value.name
            try:
                given = self.tensor(name)
            except InputError as error:
                raise InputError(f"{self._path}: output '{name}': {error}") from error
            if name in self.draft.tensors and self.draft.tensors[name].role is Role.INPUT:
                raise InputError(f"{self._path}: output '{name}' is an input; put an Identity between")
            if given.name == name:
                raise InputError(f"{self._path}: '{name}' is an output twice")
            self.draft.reserved.discard(name)
            renamed = self.draft.add(msgspec.structs.replace(given, name=name, role=Role.OUTPUT))
            self.tensors[name] = renamed
            if not renamed.elements:
                continue
            self.draft.append(
                Operator(
                    name=name,
                    kind="reshape",
                    inputs=(given.name,),
                    outputs=(name,),
                    operands=("x", "y"),
                    attributes={"shape": given.shape},
                )
            )


def _ends(name: str) -> Iterator[int]:
    """Where a name's parts end."""
    return (at for at, letter in enumerate(name) if letter in "/.")


def element_type(code: int) -> ElementType | None:
    """Our element type of ONNX's number; None if there is none."""
    return {number: kind for kind, number in NUMBERS.items()}.get(code)


NUMBERS: Mapping[ElementType, int] = {
    ElementType.FLOAT32: onnx.TensorProto.FLOAT,
    ElementType.FLOAT16: onnx.TensorProto.FLOAT16,
    ElementType.BFLOAT16: onnx.TensorProto.BFLOAT16,
    ElementType.INT8: onnx.TensorProto.INT8,
    ElementType.UINT8: onnx.TensorProto.UINT8,
    ElementType.INT32: onnx.TensorProto.INT32,
    ElementType.INT64: onnx.TensorProto.INT64,
    ElementType.BOOL: onnx.TensorProto.BOOL,
}
