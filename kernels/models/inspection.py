"""What a model is made of, and which of its nodes no operator of ours does, with the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import msgspec
import onnx
from onnx import shape_inference

from kernels.elements import element_of
from kernels.errors import InputError
from kernels.estimate import Estimate, estimates
from kernels.graph import optimise
from kernels.graph.draft import Draft
from kernels.models import onnx_file
from kernels.models.onnx_model import Walk, element_type, read_onnx
from kernels.names import identifier
from kernels.operators import find_family
from kernels.operators.base import Array
from kernels.program import ElementType, Role, Tensor
from toolchains.target import Target


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A node that cannot be taken."""

    node: str
    op: str
    reason: str


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a model before it is built.

    `flops` are those of the nodes that can be taken; `unseen` is the number of nodes that
    read what a missing one makes, where nothing is known of its shape. `targets` say what a
    build needs where it was asked for and nothing is missing.
    """

    operators: dict[str, int]
    parameters: int
    parameter_bytes: int
    flops: int
    missing: tuple[Missing, ...]
    unseen: int
    targets: tuple[Estimate, ...] = ()


def inspect_onnx(path: Path, dims: dict[str, int], targets: Collection[Target] = ()) -> Inspection:
    """Walk over all nodes, past those that cannot be taken; InputError if it is no model at all."""
    found = _inspect(path, dims)
    if found.missing or not targets:
        return found
    planned = estimates(optimise(read_onnx(path, dims)), targets)
    return msgspec.structs.replace(found, targets=planned)


def _inspect(path: Path, dims: dict[str, int]) -> Inspection:
    model, weights = onnx_file.load(path, dims)
    shapes = _inferred(model)
    walk = Walk(path, model, weights, Draft(identifier(path.stem), path.name))
    held = [value for value in walk.values.values() if _is_weight(value)]
    missing: list[Missing] = []
    unknown: set[str] = set()
    unseen = 0
    for node in model.graph.node:
        if not unknown.isdisjoint(node.input):
            unseen += 1
            unknown.update(node.output)
            continue
        try:
            walk.take(node)
        except InputError as error:
            reason = str(error.__cause__ or error)
            missing.append(Missing(node=onnx_file.name_of(node), op=node.op_type, reason=reason))
            for name in node.output:
                _assume(walk, shapes.get(name), name, unknown)
    return Inspection(
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        parameters=sum(value.size for value in held),
        parameter_bytes=sum(value.nbytes for value in held),
        flops=_flops(walk.draft),
        missing=tuple(missing),
        unseen=unseen,
    )


def _is_weight(value: Array) -> bool:
    """Whether it holds what is learnt, not shapes: numbers with a point, or bytes that stand for them."""
    kind = element_of(value.dtype)
    return kind is not None and (kind.floating or kind in (ElementType.INT8, ElementType.UINT8))


def _inferred(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    graph = shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}


def _assume(walk: Walk, given: onnx.TypeProto.Tensor | None, name: str, unknown: set[str]) -> None:
    """Go on as if the node had been taken, where ONNX knows what it makes."""
    dims = [] if given is None else [dim.dim_value for dim in given.shape.dim]
    dtype = None if given is None else element_type(given.elem_type)
    if dtype is None or given is None or not given.HasField("shape") or min(dims, default=1) < 1:
        unknown.add(name)
        return
    tensor = Tensor(
        name=walk.draft.fresh(f"{name}.assumed"), shape=tuple(dims), role=Role.INTERNAL, dtype=dtype
    )
    walk.tensors[name] = walk.draft.add(tensor)


def _flops(draft: Draft) -> int:
    total = 0
    for operator in draft.operators:
        family = find_family(operator.kind)
        names = (*operator.inputs, *operator.outputs)
        shapes = {
            name: draft.tensors[given].shape for name, given in zip(operator.operands, names, strict=True)
        }
        total += family.flops(msgspec.convert(operator.attributes, family.attributes), shapes)
    return total
