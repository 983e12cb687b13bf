"""Sequences and optional values, which are gone when a model is read: names of the tensors that they hold.

Places in sequences, and what tensors are cut into, must be known for that (ONNX, "SequenceAt",
"SplitToSequence", "Optional" and others).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kernels.errors import InputError
from kernels.graph.draft import Draft
from kernels.program import ElementType, Role, Tensor

Array = NDArray[Any]

OWN = {"": 13}
"""Opset of the nodes that are put between: pieces of a tensor, and the tensor of its pieces."""
MOST_JOINED = 64
"""Tensors that one node joins; more are joined in turn."""


class Walk(Protocol):
    """What the reader knows of the model's names by now."""

    draft: Draft
    values: dict[str, Array]
    sequences: dict[str, tuple[str, ...]]
    """Tensors in sequences, by their names."""
    written: int
    """Nodes that were written out so far."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name; InputError if it is none."""

    def know(self, name: str, value: Array) -> None:
        """Give a name a value."""

    def alias(self, name: str, other: str) -> None:
        """Make a name mean what another one means."""

    def space(self, base: str) -> str:
        """What names of tensors begin with that are put between the model's own."""

    def need(self, names: Sequence[str]) -> None:
        """Say that these will be read."""

    def count(self, elements: int) -> None:
        """Say that so many elements of constants are computed ahead; InputError if that is too much."""

    def take_inside(self, nodes: Sequence[onnx.NodeProto], opsets: Mapping[str, int], where: str) -> None:
        """Take nodes that come from a node's `where`."""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Its attributes by name."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def known(walk: Walk, name: str, what: str, why: str) -> Array:
    """The value of an input; InputError if nobody knows it yet."""
    value = walk.values.get(name)
    if value is None:
        raise InputError(f"its {what} ('{name}') must be constant: {why}{hint(walk.draft)}")
    return value


def hint(draft: Draft) -> str:
    """How inputs of one whole number are made constant, if there are any, for the end of an error."""
    whole = (ElementType.INT32, ElementType.INT64, ElementType.BOOL)
    inputs = [each for each in draft.tensors.values() if each.role is Role.INPUT]
    flags = [f"--dim {each.name}=..." for each in inputs if each.elements == 1 and each.dtype in whole]
    return f"; {' '.join(flags)} gives what is computed of it a value for good" if flags else ""


def emit(walk: Walk, op: str, inputs: Sequence[str], outputs: Sequence[str], **words: Any) -> None:
    """Take a node of ours."""
    walk.need(outputs)
    walk.take_inside([helper.make_node(op, inputs, outputs, **words)], OWN, "iterations")


def constant(walk: Walk, name: str, value: Any) -> str:
    """The name, which now has that value."""
    walk.know(name, np.asarray(value))
    return name


def stack(walk: Walk, parts: Sequence[str], axis: int, name: str) -> None:
    """Tensors of one shape side by side along a new axis."""
    if not parts:
        raise InputError(f"'{name}' holds nothing, and nobody knows of what shape")
    shape, inside = walk.tensor(parts[0]).shape, walk.space(name)
    at = axis % (len(shape) + 1)
    extents = constant(walk, f"{inside}/shape", np.array([*shape[:at], 1, *shape[at:]], np.int64))
    made = [f"{inside}/part.{number}" for number in range(len(parts))]
    for part, own in zip(parts, made, strict=True):
        other = walk.tensor(part).shape
        if other != shape:
            raise InputError(f"'{name}' would hold tensors of the shapes {list(shape)} and {list(other)}")
        emit(walk, "Reshape", [part, extents], [own])
    join(walk, made, at, name)


def join(walk: Walk, parts: Sequence[str], axis: int, name: str) -> None:
    """Tensors one after another along an axis, so many at a time."""
    level, inside = 0, walk.space(name)
    while len(parts) > MOST_JOINED:
        level += 1
        groups = [parts[at : at + MOST_JOINED] for at in range(0, len(parts), MOST_JOINED)]
        joined = [f"{inside}/joined.{level}.{number}" for number in range(len(groups))]
        for group, own in zip(groups, joined, strict=True):
            emit(walk, "Concat", group, [own], axis=axis)
        parts = joined
    emit(walk, "Concat", parts, [name], axis=axis)


def _same(walk: Walk, node: onnx.NodeProto) -> None:
    if not node.input or not node.input[0]:
        raise InputError("an optional value that is not there")
    walk.alias(node.output[0], node.input[0])


def _has_element(walk: Walk, node: onnx.NodeProto) -> None:
    constant(walk, node.output[0], bool(node.input and node.input[0]))


def sequence(walk: Walk, name: str) -> tuple[str, ...]:
    """The names of the tensors in a sequence."""
    if name not in walk.sequences:
        raise InputError(f"'{name}' is no sequence that is known when the model is read")
    return walk.sequences[name]


def _number(walk: Walk, node: onnx.NodeProto, number: int) -> int:
    why = "it is found when the model is read"
    return int(known(walk, node.input[number], "position", why).ravel()[0])


def _place(walk: Walk, node: onnx.NodeProto, number: int, default: int, count: int) -> int:
    """Input `number`, a place among `count`, from the end if negative."""
    place = default
    if number < len(node.input) and node.input[number]:
        place = _number(walk, node, number)
    if not -count <= place < count:
        raise InputError(f"position {place} of {count}")
    return place % count


def _construct(walk: Walk, node: onnx.NodeProto) -> None:
    walk.sequences[node.output[0]] = tuple(node.input)


def _at(walk: Walk, node: onnx.NodeProto) -> None:
    items = sequence(walk, node.input[0])
    walk.alias(node.output[0], items[_place(walk, node, 1, 0, len(items))])


def _insert(walk: Walk, node: onnx.NodeProto) -> None:
    items = sequence(walk, node.input[0])
    given = len(node.input) > 2 and bool(node.input[2])  # noqa: PLR2004 - the third input
    at = len(items)
    if given and _number(walk, node, 2) != at:  # behind the last one, or before one that is there
        at = _place(walk, node, 2, 0, len(items))
    walk.sequences[node.output[0]] = (*items[:at], node.input[1], *items[at:])


def _erase(walk: Walk, node: onnx.NodeProto) -> None:
    items = sequence(walk, node.input[0])
    at = _place(walk, node, 1, -1, len(items))
    walk.sequences[node.output[0]] = (*items[:at], *items[at + 1 :])


def _length(walk: Walk, node: onnx.NodeProto) -> None:
    constant(walk, node.output[0], np.int64(len(sequence(walk, node.input[0]))))


def _split(walk: Walk, node: onnx.NodeProto) -> None:
    """Pieces of one extent, of given ones, or single places, without their axis if that is not kept."""
    words, source, result = attributes(node), node.input[0], node.output[0]
    shape = walk.tensor(source).shape
    axis = words.get("axis", 0) % len(shape)
    extent, sizes = shape[axis], [1] * shape[axis]
    given = node.input[1] if len(node.input) > 1 else ""
    if given:
        split = known(walk, given, "split", "its pieces are cut when the model is read")
        step = int(split.ravel()[0])
        sizes = [int(size) for size in split] if split.ndim else [step] * (extent // step)
        if not split.ndim and extent % step:
            sizes.append(extent % step)
    inside = walk.space(result)
    parts = tuple(f"{inside}/part.{number}" for number in range(len(sizes)))
    if given or words.get("keepdims", 1):
        extents = constant(walk, f"{inside}/split", np.array(sizes, np.int64))
        emit(walk, "Split", [source, extents], parts, axis=axis)
    else:
        for number, part in enumerate(parts):
            at = constant(walk, f"{part}/place", np.int64(number))
            emit(walk, "Gather", [source, at], [part], axis=axis)
    walk.sequences[result] = parts


def _concat(walk: Walk, node: onnx.NodeProto) -> None:
    words, items = attributes(node), sequence(walk, node.input[0])
    if words.get("new_axis", 0) or not items:
        stack(walk, items, words["axis"], node.output[0])
    else:
        join(walk, items, words["axis"], node.output[0])


HANDLERS: Mapping[str, Callable[[Walk, onnx.NodeProto], None]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceAt": _at,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceLength": _length,
    "SplitToSequence": _split,
    "ConcatFromSequence": _concat,
    "Optional": _same,
    "OptionalGetElement": _same,
    "OptionalHasElement": _has_element,
}
"""By the operator's type."""


def handler(walk: Walk, node: onnx.NodeProto) -> Callable[[Walk, onnx.NodeProto], None] | None:
    """What takes such a node; None if it is another."""
    if node.domain:
        return None
    if node.op_type == "Identity" and node.input[0] in walk.sequences:
        return _same
    return HANDLERS.get(node.op_type)
