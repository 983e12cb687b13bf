"""Updates of a tensor at indices: ONNX's ScatterElements and ScatterND, and what is made of them.

A negative index counts from the end; an update whose index lies beyond an axis is left out, so
that nothing outside is ever written. Updates come in order: of several at one place the last
one stays, or all are joined, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    ALL_TYPES,
    NUMBERS,
    UNIT_ROUNDOFF,
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Planned,
    Scheduler,
    Shape,
    Shapes,
    widened,
)
from kernels.operators.indexing import (
    check_elements,
    check_parts,
    drawn_indices,
    element_loops,
    index_type,
    wrapped,
)
from kernels.operators.movement import strides_of
from kernels.operators.reduction import larger, smaller
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Role, Tensor
from kernels.schedules.channels import emit_map
from kernels.schedules.copying import emit_copy


class Updated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shapes of the tensor, of the indices, and of what is put there."""

    x: Shape
    indices: Shape
    updates: Shape


Join = Callable[[Any, Any, Any], Any]
JOINS: Mapping[str, tuple[Join | None, Callable[[Any, Any], Any]]] = {
    "none": (None, lambda old, new: new),
    "add": (lambda b, old, new: b.sum(old, new), np.add),
    "mul": (lambda b, old, new: b.product(old, new), np.multiply),
    "max": (larger, np.maximum),
    "min": (smaller, np.minimum),
}
"""How what is there and an update are joined, by the builder and by NumPy."""
ROUNDING = ("add", "mul")


class Scattering(Family):
    """What both share: a copy of x, in place where x and y are one buffer, and then the updates."""

    fuses = False
    types = ALL_TYPES

    def typed(self, definition: Definition, dtype: ElementType) -> Definition:
        """Truth values are moved, not joined."""
        reduction = definition.attributes["reduction"]
        if reduction != "none" and dtype not in NUMBERS:
            raise InputError(f"reduction '{reduction}' of {dtype}", key="type")
        return super().typed(definition, dtype)

    def defined(self, entry: Any, updates: Shape) -> Definition:
        """The indices, x, the updates, and y."""
        attributes, inputs = entry.attributes, entry.inputs
        if attributes.reduction not in JOINS:
            raise InputError(
                f"reduction '{attributes.reduction}' is none of {', '.join(JOINS)}",
                key="attributes.reduction",
            )
        if inputs.updates != updates:
            raise InputError(
                f"inputs.updates = {list(inputs.updates)}, where these indices need {list(updates)}",
                key="inputs.updates",
            )
        kind = index_type(attributes.index_type)
        return Definition(
            attributes=msgspec.to_builtins(attributes),
            operands=(
                Tensor(name="x", shape=inputs.x, role=Role.INPUT),
                Tensor(name="indices", shape=inputs.indices, role=Role.INPUT, dtype=kind),
                Tensor(name="updates", shape=updates, role=Role.INPUT),
            ),
            output=Tensor(name="y", shape=inputs.x, role=Role.OUTPUT),
        )

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Numbers for the tensors, and indices that also lie beyond."""
        if operand.name == "indices":
            return drawn_indices(generator, operand)
        return super().draw(generator, operand)

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """One for each update that is joined."""
        return 0 if attributes.reduction == "none" else prod(shapes["updates"])

    def plan(self, attributes: Any, shapes: Shapes, weights: frozenset[str], by: Scheduler) -> Planned:
        """X may be y: each element is copied before it is updated."""
        return Planned(in_place="x")

    def copy(self, b: Any, kernel: Kernel) -> None:
        """Emit that y is x."""
        elements = kernel.output.elements
        emit_copy(b, (b.buffers["x"], 0), (b.buffers["y"], 0), [(elements, 1, 1)])

    def update(self, b: Any, reduction: str, source: Any, target: Any, lanes: int) -> None:
        """Emit that so many updates from `source` on go to y from `target` on."""
        updates, y = b.buffers["updates"], b.buffers["y"]
        join, _ = JOINS[reduction]
        if join is None:
            b.store(y, target, b.load(updates, source, lanes))
            return
        old, new = b.let(b.read(y, target, lanes)), b.let(b.read(updates, source, lanes))
        b.write(y, target, join(b, old, new))

    def estimated(
        self, reduction: str, arrays: Mapping[str, Array], at: Array, inside: Array, updates: Array
    ) -> Estimate:
        """Updates at places `at` of y as one row, of which those that are `inside` count, in order."""
        x = arrays["x"]
        value, size = widened(x).ravel().copy(), np.abs(widened(x).ravel().astype(np.float64))
        at, new = at[inside], widened(updates)[inside]
        _, join = JOINS[reduction]
        if reduction == "none":
            value[at] = new
        else:
            join.at(value, at, new)  # type: ignore[attr-defined]
        many = np.bincount(at, minlength=value.size)
        rounded = int(many.max(initial=0)) if reduction in ROUNDING else 0
        if reduction == "add":
            np.add.at(size, at, np.abs(new.astype(np.float64)))
        else:
            size = np.abs(value.astype(np.float64))
        # Halves are rounded after each update, for y holds them: by as much as their unit is coarser.
        coarse = COARSE.get(x.dtype.name)
        extra = 0.0 if coarse is None else rounded * (coarse[0] * 1.01 * size + coarse[1])
        return Estimate(
            value=value.reshape(x.shape),
            magnitude=size.reshape(x.shape) if rounded else np.zeros(x.shape),
            roundings=rounded,
            extra=np.reshape(extra, x.shape) if coarse is not None else 0.0,
        )


COARSE = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, UNIT_ROUNDOFF * 2.0**-126)}
"""Half a unit in the last place of halves, relative, and near zero (IEEE 754-2019, table 3.5)."""


class ElementsAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The axis along which the indices count, their type, and how updates join what is there."""

    axis: int
    reduction: str = "none"
    index_type: ElementType = ElementType.INT32


class ElementsEntry(Entry, frozen=True, kw_only=True):
    """Updates of elements in a listing."""

    inputs: Updated
    attributes: ElementsAttributes


class ScatterElements(Scattering):
    """y = x, but y[i, indices[i, j, k], k] = updates[i, j, k], along axis 1 of 3."""

    kind = "scatter_elements"
    entry: ClassVar[type[Any]] = ElementsEntry
    attributes = ElementsAttributes

    def define(self, entry: ElementsEntry) -> Definition:
        """Updates of the indices' shape."""
        check_elements(entry.inputs.x, entry.inputs.indices, entry.attributes.axis)
        return self.defined(entry, entry.inputs.indices)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Loops over the updates, one at a time."""
        self.copy(b, kernel)
        words = msgspec.convert(kernel.attributes, ElementsAttributes)
        axis, steps = words.axis, strides_of(kernel.output.shape)
        with element_loops(b, kernel.operand("indices").shape, steps, axis) as (base, at):
            given, inside = _inside(b, at, kernel.output.shape[axis])
            target = base + b.as_index(given) * steps[axis]
            b.when(inside, lambda: self.update(b, words.reduction, at, target, 1))

    def reference(self, attributes: ElementsAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        indices, axis = arrays["indices"].astype(np.int64), attributes.axis
        shape = arrays["x"].shape
        chosen = np.where(indices < 0, indices + shape[axis], indices)
        inside = (chosen >= 0) & (chosen < shape[axis])
        others = np.indices(indices.shape)
        others[axis] = np.where(inside, chosen, 0)
        at = np.ravel_multi_index(tuple(others), shape)
        return self.estimated(
            attributes.reduction, arrays, at.ravel(), inside.ravel(), arrays["updates"].ravel()
        )


class PartsAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The indices' type, and how updates join what is there."""

    reduction: str = "none"
    index_type: ElementType = ElementType.INT32


class PartsEntry(Entry, frozen=True, kw_only=True):
    """Updates of parts in a listing."""

    inputs: Updated
    attributes: PartsAttributes = PartsAttributes()


class ScatterParts(Scattering):
    """y = x, but y[indices[i..., 0], indices[i..., 1], ..., :] = updates[i..., :].

    The last axis of the indices has a number for each leading axis of x.
    """

    kind = "scatter_nd"
    entry: ClassVar[type[Any]] = PartsEntry
    attributes = PartsAttributes

    def define(self, entry: PartsEntry) -> Definition:
        """Updates of the indices' shape but the last axis, and what is left of x's."""
        x, indices = entry.inputs.x, entry.inputs.indices
        check_parts(x, indices, 0)
        return self.defined(entry, (*indices[:-1], *x[indices[-1] :]) or (1,))

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Vectors along a part, for each list of numbers."""
        self.copy(b, kernel)
        reduction = msgspec.convert(kernel.attributes, PartsAttributes).reduction
        shape, indices = kernel.output.shape, kernel.operand("indices").shape
        count = indices[-1]
        columns = prod(shape[count:])
        with b.loop(0, prod(indices[:-1])) as number:

            def part(axis: int, first: Any) -> None:
                """Go on to the next axis if the index lies in this one."""
                if axis == count:
                    emit_map(
                        b,
                        columns,
                        lambda at, lanes: self.update(
                            b, reduction, number * columns + at, first + at, lanes
                        ),
                    )
                    return
                given, inside = _inside(b, number * count + axis, shape[axis])
                step = b.let(first + b.as_index(given) * strides_of(shape)[axis])
                b.when(inside, lambda: part(axis + 1, step))

            part(0, 0)

    def reference(self, attributes: PartsAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        shape, indices = arrays["x"].shape, arrays["indices"].astype(np.int64)
        count = indices.shape[-1]
        lists, extents = indices.reshape(-1, count), np.array(shape[:count])
        chosen = np.where(lists < 0, lists + extents, lists)
        inside = np.logical_and.reduce((chosen >= 0) & (chosen < extents), axis=1)
        columns = prod(shape[count:])
        within = np.where(np.expand_dims(inside, 1), chosen, 0)
        first = within @ np.array(strides_of(shape)[:count])
        at = first[:, None] + np.arange(columns)
        return self.estimated(
            attributes.reduction,
            arrays,
            at.ravel(),
            np.repeat(inside, columns),
            arrays["updates"].reshape(-1),
        )


def _inside(b: Any, at: Any, extent: int) -> tuple[Any, Any]:
    """The index at a place, counted from the first, and whether it lies within the axis.

    That is found in its own type: a 32-bit processor would cut an int64 first, to anything.
    """
    given = wrapped(b, b.let(b.load(b.buffers["indices"], at, 1)), extent)
    unsigned = b.let(b.cast(given, f"u{b.scalar(given)}"))
    return given, unsigned < b.like(extent, unsigned)


FAMILIES = (ScatterElements(), ScatterParts())
