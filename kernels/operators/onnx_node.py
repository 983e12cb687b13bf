"""Nodes of ONNX that no family knows: TVM's importer says what they are, the onnx package what they give.

Which ones, and what that was checked by, is a table of the reader, `kernels.models.onnx_tail`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.elements import numpy_type
from kernels.errors import InputError
from kernels.operators.base import (
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
)
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Role, Tensor

GRID = 8
"""Drawn numbers are multiples of 1 / GRID: coordinates that are made of them are mostly exact, so that
the float32 kernel and its reference round to the same neighbour."""
NORMWISE = 2.0**-16
"""Of the largest magnitude of operands and result, which a result may be off by: 2^8 roundings, of one
after the other, in float32. What is misread is off by the whole magnitude."""


class NodeAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model` is the node as an ONNX model of its own, in base 64, and `op` its type.

    `types` are the element types of x0, x1, ... and of y, whose shape is `shape`. Of integers among
    each operand, checks draw what is below `below`, if that is not 0. `scratch` is what the
    kernel may need of the arena in bytes, at most.
    """

    model: str
    op: str
    types: str
    shape: Shape
    below: Shape
    scratch: int


class NodeEntry(Entry, frozen=True, kw_only=True):
    """The shapes of the operands, named x0, x1, ..."""

    inputs: tuple[Shape, ...]
    attributes: NodeAttributes


class OnnxNode(Family):
    """One output of one node, as ONNX defines it."""

    kind = "onnx"
    entry = NodeEntry
    attributes = NodeAttributes
    fuses = False

    def define(self, entry: NodeEntry) -> Definition:
        """x0, x1, ... and y; InputError for a listing, which has no nodes."""
        given = entry.attributes
        *kinds, result = map(ElementType, given.types.split(","))
        if len(kinds) != len(entry.inputs):
            raise InputError(f"{len(entry.inputs)} operands of {len(kinds)} types", key="inputs")
        return Definition(
            attributes=msgspec.to_builtins(given),
            operands=tuple(
                Tensor(name=f"x{number}", shape=shape, role=Role.INPUT, dtype=dtype)
                for number, (shape, dtype) in enumerate(zip(entry.inputs, kinds, strict=True))
            ),
            output=Tensor(name="y", shape=given.shape, role=Role.OUTPUT, dtype=result),
        )

    def typed(self, definition: Definition, dtype: ElementType) -> Definition:
        """All types are attributes."""
        return definition

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Multiples of 1 / GRID in [-2, 2); of integers, 0 and 1."""
        if not operand.dtype.floating:
            return generator.integers(0, 2, operand.shape).astype(numpy_type(operand.dtype))
        drawn = generator.integers(-2 * GRID, 2 * GRID, operand.shape) / GRID
        return drawn.astype(numpy_type(operand.dtype))

    def drawn_for(self, kernel: Kernel, generator: np.random.Generator, operand: Operand) -> Array:
        """Integers below what the attributes say, each another one where there are enough of them."""
        below = msgspec.convert(kernel.attributes, NodeAttributes).below[int(operand.name[1:])]
        if not below:
            return self.draw(generator, operand)
        count = operand.elements
        drawn = generator.integers(0, below, count)
        if count <= below:
            drawn = generator.permutation(below)[:count]
        return drawn.reshape(operand.shape).astype(numpy_type(operand.dtype))

    def draw_special(self, kernel: Kernel, generator: np.random.Generator, operand: Operand) -> Array:
        """As ever: what becomes of NaN, ONNX mostly leaves open, and TVM decides."""
        return self.drawn_for(kernel, generator, operand)

    def flops(self, attributes: NodeAttributes, shapes: Shapes) -> int:
        """Not known: one for each element of the result."""
        return prod(attributes.shape)

    def plan(
        self, attributes: NodeAttributes, shapes: Shapes, weights: frozenset[str], by: Scheduler
    ) -> Planned:
        """No schedule: loops as TVM makes them."""
        return Planned(arena_bytes=attributes.scratch)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """By TVM's importer and legalisation."""
        b.legalised(kernel)

    def reference(self, attributes: NodeAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """By the reference evaluator of the onnx package, in float64."""
        evaluate = importlib.import_module("kernels.models.onnx_tail").evaluated
        value = evaluate(attributes.model, arrays)
        real = [array for array in (*arrays.values(), value) if array.dtype.kind not in "iub"]
        finite = [np.abs(array[np.isfinite(array)]) for array in real]
        largest = max((float(np.max(array, initial=0.0)) for array in finite), default=0.0)
        return Estimate(value=value, magnitude=np.zeros(value.shape), roundings=0, extra=NORMWISE * largest)


FAMILIES = (OnnxNode(),)
