"""Rows of a table by their numbers: gathering, embedding."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.operators.base import Array, Definition, Entry, Epilogue, Estimate, Shape, exact, positive
from kernels.operators.indexing import as_indices, drawn_indices, index_type, place, places
from kernels.operators.movement import Movement, part_of
from kernels.operators.node import Node, axis_of, reshaped, transposed
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Role, Tensor
from kernels.schedules.copying import emit_copy


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table, [rows, ...], and the shape of the indices."""

    table: Shape
    indices: Shape


class GatherAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Element type of the indices."""

    index_type: ElementType = ElementType.INT32


class GatherEntry(Entry, frozen=True, kw_only=True):
    """A gather or an embedding in a listing."""

    inputs: Table
    attributes: GatherAttributes = GatherAttributes()


class Gather(Movement):
    """y[i..., :] = table[indices[i...], :]; negative indices count from the end.

    An index beyond the table is taken for its first or last row: nothing is read outside.
    """

    kind = "gather"
    entry: ClassVar[type[Any]] = GatherEntry
    attributes = GatherAttributes
    table_role = Role.INPUT

    def define(self, entry: GatherEntry) -> Definition:
        """The indices, the table, and y."""
        table, indices = (
            positive("inputs.table", entry.inputs.table),
            positive("inputs.indices", entry.inputs.indices),
        )
        kind = index_type(entry.attributes.index_type)
        return Definition(
            attributes={"index_type": kind.value},
            operands=(
                Tensor(name="indices", shape=indices, role=Role.INPUT, dtype=kind),
                Tensor(name="table", shape=table, role=self.table_role),
            ),
            output=Tensor(name="y", shape=(*indices, *table[1:]), role=Role.OUTPUT),
        )

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Anything from the table, and indices that also lie beyond."""
        if operand.name == "indices":
            return drawn_indices(generator, operand)
        return super().draw(generator, operand)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy of a row for each index."""
        table = kernel.operand("table")
        rows, columns = table.shape[0], prod(table.shape[1:])
        with b.loop(0, kernel.operand("indices").elements) as number:
            row = place(b, b.buffers["indices"], number, rows)
            emit_copy(
                b,
                (b.buffers["table"], row * columns),
                (b.buffers["y"], number * columns),
                [(columns, 1, 1)],
            )

    def reference(self, attributes: GatherAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's, with the index wrapped and bounded."""
        table, indices = arrays["table"], arrays["indices"]
        return exact(table[places(indices, len(table))])


class Embedding(Gather):
    """A gather whose table is a weight."""

    kind = "embedding"
    table_role = Role.CONSTANT


def _gather(node: Node) -> Tensor:
    """Along the first axis, which another one is brought to; one constant index is a slice."""
    x, indices, known = node.given(0), node.given(1), node.value(1)
    axis = axis_of(node, node.attribute("axis", 0), len(x.shape))
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if known is not None and known.size == 1:
        index = int(known.ravel()[0])
        if not -x.shape[axis] <= index < x.shape[axis]:
            raise node.refuse(f"index {index} of an axis of {x.shape[axis]}")
        bounds = [(0, extent, 1) for extent in x.shape]
        bounds[axis] = (index % x.shape[axis], index % x.shape[axis] + 1, 1)
        return reshaped(node, part_of(node, x, bounds), shape)
    indices = as_indices(node, 1)
    others = [place for place in range(len(x.shape)) if place != axis]
    table = transposed(node, x, (axis, *others))
    flat = reshaped(node, indices, indices.shape or (1,))
    kind = "embedding" if node.is_constant(table) else "gather"
    y = node.call(kind, {"table": table, "indices": flat}, {"index_type": indices.dtype.value})
    count = len(flat.shape)
    rest = range(count, count + len(others))
    y = transposed(node, y, (*rest[:axis], *range(count), *rest[axis:]))
    return reshaped(node, y, shape)


FAMILIES = (Gather(), Embedding())
ONNX = {"Gather": _gather}
