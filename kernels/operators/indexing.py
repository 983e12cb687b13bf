"""Elements and parts of a tensor by a tensor of indices: ONNX's GatherElements and GatherND.

Everywhere a negative index counts from the end, and one beyond an axis is taken for its first
or last place, so that nothing outside is ever read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import Array, Definition, Entry, Epilogue, Estimate, Shape, exact, positive
from kernels.operators.movement import Movement, strides_of
from kernels.operators.node import Node, axis_of, reshaped
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Role, Tensor
from kernels.schedules.copying import emit_copy, merge

INDEX_TYPES = (ElementType.INT32, ElementType.INT64)


def index_type(given: ElementType) -> ElementType:
    """The type if indices may be of it; InputError otherwise."""
    if given not in INDEX_TYPES:
        raise InputError("attributes.index_type must be int32 or int64", key="attributes.index_type")
    return given


def wrapped(b: Any, given: Any, extent: int) -> Any:
    """An index, as it is stored, counted from the end where it is negative."""
    return b.let(b.select(given < b.like(0, given), given + b.like(extent, given), given))


def place(b: Any, indices: Any, at: Any, extent: int) -> Any:
    """The place along an axis that the index at `at` means, as an index expression within the axis.

    It is bounded in its own type: a 32-bit processor would cut an int64 first, to anything.
    """
    given = wrapped(b, b.let(b.load(indices, at, 1)), extent)
    zero, last = b.like(0, given), b.like(extent - 1, given)
    return b.let(b.as_index(b.select(given < zero, zero, b.select(given > last, last, given))))


def places(indices: Array, extent: int) -> Array:
    """The same, by NumPy."""
    wide = indices.astype(np.int64)
    return np.clip(np.where(wide < 0, wide + extent, wide), 0, extent - 1)


def drawn_indices(generator: np.random.Generator, operand: Operand) -> Array:
    """Indices over the whole range of small axes, and some beyond.

    The last ones are the farthest that there are, and one that is 1 when it is cut to 32 bits.
    """
    kind = np.dtype(operand.dtype.value)
    array = generator.integers(-9, 9, operand.shape).astype(kind)
    info = np.iinfo(kind)
    far = [info.min, info.max] if kind == np.int32 else [(1 << 32) + 1, info.min, info.max]
    array.reshape(-1)[-len(far) :] = far[: array.size]
    return array


class Indexed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shapes of the tensor and of the indices."""

    x: Shape
    indices: Shape


class Indexing(Movement):
    """What both share: the operands."""

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Anything from x, and indices that also lie beyond."""
        if operand.name == "indices":
            return drawn_indices(generator, operand)
        return super().draw(generator, operand)

    def defined(self, entry: Any, y: Shape) -> Definition:
        """The indices, x, and y."""
        kind = index_type(entry.attributes.index_type)
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=(
                Tensor(name="indices", shape=entry.inputs.indices, role=Role.INPUT, dtype=kind),
                Tensor(name="x", shape=entry.inputs.x, role=Role.INPUT),
            ),
            output=Tensor(name="y", shape=y, role=Role.OUTPUT),
        )


class ElementsAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The axis along which the indices count, and their type."""

    axis: int
    index_type: ElementType = ElementType.INT32


class ElementsEntry(Entry, frozen=True, kw_only=True):
    """A choice of elements in a listing."""

    inputs: Indexed
    attributes: ElementsAttributes


class GatherElements(Indexing):
    """y[i, j, k] = x[i, indices[i, j, k], k], along axis 1 of 3: one index for each element of y."""

    kind = "gather_elements"
    entry: ClassVar[type[Any]] = ElementsEntry
    attributes = ElementsAttributes

    def define(self, entry: ElementsEntry) -> Definition:
        """An output of the indices' shape."""
        check_elements(entry.inputs.x, entry.inputs.indices, entry.attributes.axis)
        return self.defined(entry, entry.inputs.indices)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Loops over the indices; the axis moves nothing in x by itself."""
        axis = msgspec.convert(kernel.attributes, ElementsAttributes).axis
        shape, size = kernel.output.shape, kernel.operand("x").shape[axis]
        steps = strides_of(kernel.operand("x").shape)
        with element_loops(b, shape, steps, axis) as (base, at):
            chosen = place(b, b.buffers["indices"], at, size)
            b.store(b.buffers["y"], at, b.load(b.buffers["x"], base + chosen * steps[axis], 1))

    def reference(self, attributes: ElementsAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's, of the part of x that the indices cover."""
        x, indices, axis = arrays["x"], arrays["indices"], attributes.axis
        covered = x[tuple(slice(n) if d != axis else slice(None) for d, n in enumerate(indices.shape))]
        return exact(np.take_along_axis(covered, places(indices, x.shape[axis]), axis))


def along(shape: Shape, axis: int) -> Shape:
    """The extents of all other axes."""
    return (*shape[:axis], *shape[axis + 1 :])


@contextmanager
def element_loops(b: Any, shape: Shape, steps: Shape, axis: int) -> Iterator[tuple[Any, Any]]:
    """As few loops as there can be over indices of `shape`.

    Of each its offset in a tensor of `steps`, at place 0 of `axis`, and its own.
    """
    moves = [0 if other == axis else step for other, step in enumerate(steps)]
    base, at = 0, 0
    with ExitStack() as loops:
        for extent, step, own in merge(list(zip(shape, moves, strides_of(shape), strict=True))):
            number = loops.enter_context(b.loop(0, extent))
            base, at = base + number * step, at + number * own
        yield base, at


class PartsAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many leading axes x and the indices share, and the indices' type."""

    batch: int = 0
    index_type: ElementType = ElementType.INT32


class PartsEntry(Entry, frozen=True, kw_only=True):
    """A choice of parts in a listing."""

    inputs: Indexed
    attributes: PartsAttributes = PartsAttributes()


class GatherParts(Indexing):
    """y[b..., i..., :] = x[b..., indices[b..., i..., 0], indices[b..., i..., 1], ..., :].

    The last axis of the indices has a number for each axis of x that is chosen from.
    """

    kind = "gather_nd"
    entry: ClassVar[type[Any]] = PartsEntry
    attributes = PartsAttributes

    def define(self, entry: PartsEntry) -> Definition:
        """An output of the indices' shape but the last axis, and what is left of x's."""
        x, indices = entry.inputs.x, entry.inputs.indices
        check_parts(x, indices, entry.attributes.batch)
        rest = x[entry.attributes.batch + indices[-1] :]
        return self.defined(entry, (*indices[:-1], *rest) or (1,))

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy of a part for each list of numbers."""
        batch = msgspec.convert(kernel.attributes, PartsAttributes).batch
        x, indices = kernel.operand("x").shape, kernel.operand("indices").shape
        *_, count = indices
        many, columns = prod(indices[batch:-1]), prod(x[batch + count :])
        with b.loop(0, prod(x[:batch])) as outer, b.loop(0, many) as number:
            at = outer * many + number
            first = outer * prod(x[batch:])
            for axis in range(batch, batch + count):
                chosen = place(b, b.buffers["indices"], at * count + (axis - batch), x[axis])
                first = first + chosen * strides_of(x)[axis]
            part = (b.buffers["x"], first)
            emit_copy(b, part, (b.buffers["y"], at * columns), [(columns, 1, 1)])

    def reference(self, attributes: PartsAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's, the shared axes made one."""
        x, indices, batch = arrays["x"], arrays["indices"], attributes.batch
        count = indices.shape[-1]
        shared = prod(x.shape[:batch])
        lists = indices.reshape(shared, -1, count)
        chosen = [places(lists[..., n], x.shape[batch + n]) for n in range(count)]
        parts = x.reshape(shared, *x.shape[batch:])[np.arange(shared)[:, None], *chosen]
        return exact(parts.reshape((*indices.shape[:-1], *x.shape[batch + count :]) or (1,)))


def check_elements(x: Shape, indices: Shape, axis: int) -> None:
    """InputError unless the indices, of as many axes, go beyond x along that axis alone."""
    positive("inputs.x", x)
    positive("inputs.indices", indices, rank=len(x))
    if not 0 <= axis < len(x):
        raise InputError(f"attributes.axis = {axis} of {len(x)} axes", key="attributes.axis")
    if any(many > extent for many, extent in zip(along(indices, axis), along(x, axis), strict=True)):
        raise InputError(
            f"inputs.indices = {list(indices)} goes beyond inputs.x = {list(x)} "
            f"along another axis than {axis}",
            key="inputs.indices",
        )


def check_parts(x: Shape, indices: Shape, batch: int) -> None:
    """InputError unless the last axis of the indices counts axes of x behind those that both share."""
    positive("inputs.x", x)
    positive("inputs.indices", indices)
    if not 0 <= batch < len(indices) or x[:batch] != indices[:batch]:
        raise InputError(
            f"attributes.batch = {batch}: inputs.x = {list(x)} and inputs.indices = {list(indices)} "
            "begin otherwise",
            key="attributes.batch",
        )
    if batch + indices[-1] > len(x):
        raise InputError(
            f"inputs.indices = {list(indices)} chooses from {indices[-1]} axes of {len(x) - batch}",
            key="inputs.indices",
        )


def as_indices(node: Node, number: int) -> Tensor:
    """An input that holds indices; InputError if it is of another type."""
    indices = node.given(number)
    if indices.dtype not in INDEX_TYPES:
        raise node.refuse(f"indices of type {indices.dtype}")
    return indices


def parts_of(node: Node, x: Tensor, indices: Tensor, batch: int = 0) -> Tensor:
    """The parts of x that the lists of numbers along the last axis of the indices name."""
    words = {"batch": batch, "index_type": indices.dtype.value}
    y = node.call("gather_nd", {"x": x, "indices": indices}, words)
    return reshaped(node, y, (*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]))


def elements_of(node: Node, x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The elements of x along an axis that the indices, as many as y has elements, name."""
    words = {"axis": axis, "index_type": indices.dtype.value}
    return node.call("gather_elements", {"x": x, "indices": indices}, words)


def _gather_elements(node: Node) -> Tensor:
    x = node.given(0)
    axis = axis_of(node, node.attribute("axis", 0), len(x.shape))
    return elements_of(node, x, as_indices(node, 1), axis)


def _gather_nd(node: Node) -> Tensor:
    return parts_of(node, node.given(0), as_indices(node, 1), node.attribute("batch_dims", 0))


FAMILIES = (GatherElements(), GatherParts())
ONNX = {"GatherElements": _gather_elements, "GatherND": _gather_nd}
