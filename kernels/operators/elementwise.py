"""What element-wise operators share: one pass over memory, alone or in an epilogue."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from math import prod
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    Array,
    Definition,
    ElementWise,
    Entry,
    Epilogue,
    Estimate,
    Planned,
    Scheduler,
    Shape,
    Shapes,
    exact,
    positive,
)
from kernels.plan import Kernel
from kernels.program import ElementType, Role, Tensor
from kernels.schedules import channels

TOGETHER = 4
"""In place, so many vectors are loaded before any is stored if the processor loads pairs of them."""
NAMES = ("condition", "x", "a", "b")
"""Of inputs, in the order of the function's arguments; a constant comes later in a signature."""


class NoAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator without attributes."""


class OneInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input x, of any shape."""

    x: Shape


class TwoInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs a and b, of shapes that broadcast as NumPy's and ONNX's do."""

    a: Shape
    b: Shape


class MapEntry(Entry, frozen=True, kw_only=True):
    """An operator of one input, without attributes, in a listing."""

    inputs: OneInput


class PairEntry(Entry, frozen=True, kw_only=True):
    """An operator of two inputs, without attributes, in a listing."""

    inputs: TwoInputs


class Map(ElementWise):
    """An element-wise operator of one input (x) or two (a, b); subclasses say which function."""

    entry: ClassVar[type[Any]] = MapEntry
    attributes: ClassVar[type[Any]] = NoAttributes
    input_scale = 8.0
    result: ClassVar[ElementType] = ElementType.FLOAT32
    """What y is of; float32 stands for the type of the inputs."""

    def define(self, entry: Any) -> Definition:
        """The inputs, and y with their broadcast shape."""
        inputs = {name: tuple(shape) for name, shape in msgspec.to_builtins(entry.inputs).items()}
        for name, shape in inputs.items():
            positive(f"inputs.{name}", shape)
        try:
            result = np.broadcast_shapes(*inputs.values())
        except ValueError as error:
            shapes = " and ".join(str(list(shape)) for shape in inputs.values())
            raise InputError(f"inputs of shapes {shapes} do not broadcast", key="inputs.b") from error
        return Definition(
            attributes=msgspec.to_builtins(getattr(entry, "attributes", NoAttributes())),
            operands=tuple(
                Tensor(name=name, shape=shape, role=Role.INPUT) for name, shape in inputs.items()
            ),
            output=Tensor(name="y", shape=result, role=Role.OUTPUT, dtype=self.result),
        )

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """One for each element."""
        return prod(shapes["y"])

    def carried(self, attributes: Any, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Elements are on their own, wherever they lie."""
        return attributes

    def plan(self, attributes: Any, shapes: Shapes, weights: frozenset[str], by: Scheduler) -> Planned:
        """Nothing to decide; each vector of an input is read before the result's is stored there.

        So an input may be written over that is not broadcast, for whose elements are read again,
        and that is of the output's type.
        """
        whole = [
            name
            for name in NAMES
            if name in shapes and name not in weights and prod(shapes[name]) == prod(shapes["y"])
            if name != "condition" and self.result is ElementType.FLOAT32
        ]
        return Planned(in_place=whole[0] if whole else "", written_once=True)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Loops over the outer axes, vectors along the last; axes are merged where they can be."""
        attributes = msgspec.convert(kernel.attributes, self.attributes)
        inputs = sorted((o for o in kernel.operands if o.name in NAMES), key=lambda o: NAMES.index(o.name))
        by_column = any(step.operand for step in kernel.epilogue)
        axes = merged(kernel.output.shape or (1,), [o.shape for o in inputs], keep_last=by_column)
        *outer, (columns, steps) = axes
        with ExitStack() as loops:
            row: Any = 0
            starts: list[Any] = [0 for _ in inputs]
            for extent, strides in outer:
                index = loops.enter_context(b.loop(0, extent))
                row = row * extent + index
                starts = [at + index * stride for at, stride in zip(starts, strides, strict=True)]

            def load(column: Any, lanes: int) -> list[Any]:
                values = []
                for operand, start, step in zip(inputs, starts, steps, strict=True):
                    buffer = b.buffers[operand.name]
                    if step:
                        values.append(b.let(self.read(b, buffer, start + column, lanes)))
                    else:
                        values.append(b.let(b.splat(self.read(b, buffer, start, 1), lanes)))
                return values

            def body(parts: list[channels.Part]) -> None:
                loaded = [load(*part) for part in parts]
                for (column, _), values in zip(parts, loaded, strict=True):
                    value = self.apply(b, attributes, *values, *([None] if len(values) == 1 else []))
                    self.write(b, b.buffers["y"], row * columns + column, epilogue(value, row, column))

            paired = kernel.in_place and b.cpu.paired_loads and not self.heavy
            channels.emit_groups(b, columns, TOGETHER if paired else 1, body)

    def read(self, b: Any, buffer: Any, index: Any, lanes: int) -> Any:
        """What `apply` gets of an input."""
        return b.read(buffer, index, lanes)

    def write(self, b: Any, buffer: Any, index: Any, value: Any) -> None:
        """Store what `apply` gives."""
        b.write(buffer, index, value)

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """The function applied to exact inputs."""
        first, *others = [arrays[name] for name in NAMES if name in arrays]
        if not others:
            return self.apply_estimate(attributes, exact(first), None)
        wide = np.broadcast_arrays(first, others[0])
        return self.apply_estimate(attributes, exact(wide[0]), wide[1])


def merged(
    shape: Shape, inputs: list[Shape], *, keep_last: bool = False
) -> list[tuple[int, tuple[int, ...]]]:
    """The fewest loops over `shape`: (extent, stride of each input), outermost first.

    A broadcast axis has stride 0. Neighbouring axes are merged where every input runs
    through them without a gap; the last one stays alone if `keep_last`.
    """
    axes: list[tuple[int, tuple[int, ...]]] = []
    for axis, extent in enumerate(shape):
        strides = tuple(_stride(given, axis - len(shape)) for given in inputs)
        is_last = axis == len(shape) - 1
        if extent == 1 and not (is_last and (keep_last or not axes)):
            continue
        last = axes[-1] if axes else None
        joins = last and all(s == t * extent for s, t in zip(last[1], strides, strict=True))
        if last and joins and not (keep_last and is_last):
            axes[-1] = (last[0] * extent, strides)
        else:
            axes.append((extent, strides))
    return axes


def _stride(shape: Shape, axis: int) -> int:
    if -axis > len(shape) or shape[axis] == 1:
        return 0
    return prod(shape[len(shape) + axis + 1 :])
