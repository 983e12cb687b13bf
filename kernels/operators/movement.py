"""Moving elements without arithmetic: transposition, slicing, concatenation, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    ALL_TYPES,
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    along_its_axis,
    exact,
    from_one_input,
    positive,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, axis_of, integers, transposed, without_elements
from kernels.operators.reduction import normalized
from kernels.plan import Kernel
from kernels.program import Role, Tensor
from kernels.schedules.channels import emit_map
from kernels.schedules.copying import emit_copy


def strides_of(shape: Shape) -> tuple[int, ...]:
    """Row-major strides in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


class Movement(Family):
    """What all share: no arithmetic, so that results are exact."""

    fuses = False
    special_inputs = True
    types = ALL_TYPES

    def result(self, attributes: Any, shapes: list[Shape]) -> Shape:
        """The output's shape; InputError where attributes and shapes do not fit."""
        raise NotImplementedError

    def define(self, entry: Any) -> Definition:
        """The input x and the output y."""
        shape = positive("inputs.x", entry.inputs.x)
        return from_one_input(entry.attributes, shape, self.result(entry.attributes, [shape]))

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """None."""
        return 0


class TransposeAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`permute` names for each axis of y the axis of x that it is."""

    permute: tuple[int, ...]


class TransposeEntry(Entry, frozen=True, kw_only=True):
    """A transposition in a listing."""

    inputs: OneInput
    attributes: TransposeAttributes


class Transpose(Movement):
    """The axes of x in another order; [0, 3, 1, 2] takes NHWC to NCHW."""

    kind = "transpose"
    entry = TransposeEntry
    attributes = TransposeAttributes

    def result(self, attributes: TransposeAttributes, shapes: list[Shape]) -> Shape:
        """The permuted shape."""
        (shape,) = shapes
        if sorted(attributes.permute) != list(range(len(shape))):
            raise InputError(
                f"attributes.permute = {list(attributes.permute)} is no permutation of {len(shape)} axes",
                key="attributes.permute",
            )
        return tuple(shape[axis] for axis in attributes.permute)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy."""
        attributes = msgspec.convert(kernel.attributes, TransposeAttributes)
        shape, source = kernel.output.shape, strides_of(kernel.operand("x").shape)
        axes = [
            (extent, source[axis], stride)
            for extent, axis, stride in zip(shape, attributes.permute, strides_of(shape), strict=True)
        ]
        emit_copy(b, (b.buffers["x"], 0), (b.buffers["y"], 0), axes)

    def reference(self, attributes: TransposeAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        return exact(arrays["x"].transpose(attributes.permute))


class SliceAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number for each axis: where it starts, where it ends (exclusive), the step."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    steps: tuple[int, ...] = ()


class SliceEntry(Entry, frozen=True, kw_only=True):
    """A slice in a listing."""

    inputs: OneInput
    attributes: SliceAttributes


class Slice(Movement):
    """Every step-th element from start on, below end, along each axis."""

    kind = "slice"
    entry = SliceEntry
    attributes = SliceAttributes

    def result(self, attributes: SliceAttributes, shapes: list[Shape]) -> Shape:
        """How many elements each axis keeps."""
        (shape,) = shapes
        steps = attributes.steps or (1,) * len(shape)
        if not len(attributes.starts) == len(attributes.ends) == len(steps) == len(shape):
            raise InputError(
                f"starts, ends and steps need {len(shape)} numbers each", key="attributes.starts"
            )
        for extent, start, end, step in zip(shape, attributes.starts, attributes.ends, steps, strict=True):
            if not 0 <= start < end <= extent or step < 1:
                raise InputError(
                    f"{start} to {end} by {step} does not lie in an axis of {extent}",
                    key="attributes.starts",
                )
        return tuple(
            -(-(end - start) // step)
            for start, end, step in zip(attributes.starts, attributes.ends, steps, strict=True)
        )

    def carried(self, attributes: SliceAttributes, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """The same parts of the same axes; axes that are not cut may lie in any way."""
        steps = attributes.steps or (1,) * rank
        bounds = [(0, extent, 1) for extent in shape]
        for axis, bound in enumerate(zip(attributes.starts, attributes.ends, steps, strict=True)):
            place = axes.get(axis)
            if place is not None:
                bounds[place] = bound
            elif bound[0] or bound[2] > 1:
                return None
        starts, ends, steps = zip(*bounds, strict=True)
        return SliceAttributes(starts=starts, ends=ends, steps=steps)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy, from the first element on."""
        attributes = msgspec.convert(kernel.attributes, SliceAttributes)
        shape, source = kernel.output.shape, strides_of(kernel.operand("x").shape)
        steps = attributes.steps or (1,) * len(shape)
        first = sum(start * stride for start, stride in zip(attributes.starts, source, strict=True))
        axes = [
            (extent, stride * step, end)
            for extent, stride, step, end in zip(shape, source, steps, strides_of(shape), strict=True)
        ]
        emit_copy(b, (b.buffers["x"], first), (b.buffers["y"], 0), axes)

    def reference(self, attributes: SliceAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        steps = attributes.steps or (1,) * arrays["x"].ndim
        return exact(arrays["x"][tuple(map(slice, attributes.starts, attributes.ends, steps))])


class PadAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many elements are put before and after each axis, and what they are."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0


class PadEntry(Entry, frozen=True, kw_only=True):
    """A padding in a listing."""

    inputs: OneInput
    attributes: PadAttributes


class Pad(Movement):
    """x within a border of a constant."""

    kind = "pad"
    entry = PadEntry
    attributes = PadAttributes

    def result(self, attributes: PadAttributes, shapes: list[Shape]) -> Shape:
        """The larger shape."""
        (shape,) = shapes
        if not len(attributes.before) == len(attributes.after) == len(shape):
            raise InputError(f"before and after need {len(shape)} numbers each", key="attributes.before")
        if min(*attributes.before, *attributes.after) < 0:
            raise InputError("before and after must not be negative", key="attributes.before")
        return tuple(map(sum, zip(attributes.before, shape, attributes.after, strict=True)))

    def carried(self, attributes: PadAttributes, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Around the same axes; those without a border may lie in any way."""
        before, after = [0] * len(shape), [0] * len(shape)
        for axis, border in enumerate(zip(attributes.before, attributes.after, strict=True)):
            place = axes.get(axis)
            if place is not None:
                before[place], after[place] = border
            elif any(border):
                return None
        return PadAttributes(before=tuple(before), after=tuple(after), value=attributes.value)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """The constant everywhere, then x."""
        attributes = msgspec.convert(kernel.attributes, PadAttributes)
        y, target = b.buffers["y"], strides_of(kernel.output.shape)
        emit_map(
            b,
            kernel.output.elements,
            lambda at, lanes: b.store(y, at, b.element(attributes.value, y, lanes)),
        )
        shape = kernel.operand("x").shape
        first = sum(count * stride for count, stride in zip(attributes.before, target, strict=True))
        axes = list(zip(shape, strides_of(shape), target, strict=True))
        emit_copy(b, (b.buffers["x"], 0), (y, first), axes)

    def reference(self, attributes: PadAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        widths = list(zip(attributes.before, attributes.after, strict=True))
        return exact(np.pad(arrays["x"], widths, constant_values=arrays["x"].dtype.type(attributes.value)))


class ConcatAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The axis along which the inputs follow each other."""

    axis: int = -1


class ConcatEntry(Entry, frozen=True, kw_only=True):
    """A concatenation in a listing; `inputs` is a list of shapes, named x0, x1, ..."""

    inputs: tuple[Shape, ...]
    attributes: ConcatAttributes = ConcatAttributes()


class Concat(Movement):
    """The inputs one after the other along an axis."""

    kind = "concat"
    entry = ConcatEntry
    attributes = ConcatAttributes

    def define(self, entry: ConcatEntry) -> Definition:
        """The inputs x0, x1, ... and y."""
        for shape in entry.inputs:
            positive("inputs", shape)
        return Definition(
            attributes=msgspec.to_builtins(entry.attributes),
            operands=tuple(
                Tensor(name=f"x{number}", shape=shape, role=Role.INPUT)
                for number, shape in enumerate(entry.inputs)
            ),
            output=Tensor(
                name="y", shape=self.result(entry.attributes, list(entry.inputs)), role=Role.OUTPUT
            ),
        )

    def result(self, attributes: ConcatAttributes, shapes: list[Shape]) -> Shape:
        """The extents along the axis added up."""
        if not shapes or len(shapes) > MOST_INPUTS:
            raise InputError(f"concat takes 1 to {MOST_INPUTS} inputs", key="inputs")
        (axis,) = normalized((attributes.axis,), len(shapes[0]))
        if len({(len(shape), *shape[:axis], None, *shape[axis + 1 :]) for shape in shapes}) > 1:
            raise InputError(f"inputs may differ along axis {axis} alone", key="inputs")
        total = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def carried(
        self, attributes: ConcatAttributes, rank: int, axes: Mapping[int, int], shape: Shape
    ) -> Any:
        """Along the same axis, wherever it lies."""
        return along_its_axis(attributes, rank, axes)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One copy for each input."""
        attributes = msgspec.convert(kernel.attributes, ConcatAttributes)
        target = strides_of(kernel.output.shape)
        (axis,) = normalized((attributes.axis,), len(target))
        first = 0
        inputs = {operand.name: operand for operand in kernel.operands}
        for number in range(len(inputs) - 1):
            operand = inputs[f"x{number}"]
            axes = list(zip(operand.shape, strides_of(operand.shape), target, strict=True))
            emit_copy(b, (b.buffers[operand.name], 0), (b.buffers["y"], first), axes)
            first += operand.shape[axis] * target[axis]

    def reference(self, attributes: ConcatAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        parts = [arrays[f"x{number}"] for number in range(len(arrays))]
        return exact(np.concatenate(parts, axis=attributes.axis))


MOST_INPUTS = 12


FAMILIES = (Transpose(), Slice(), Pad(), Concat())


def _transpose(node: Node) -> Tensor:
    x = node.given(0)
    permute = tuple(node.attribute("perm", range(len(x.shape))[::-1]))
    if sorted(permute) != list(range(len(x.shape))):
        raise node.refuse(f"perm = {list(permute)} is no permutation of {len(x.shape)} axes")
    return transposed(node, x, permute)


def _concat(node: Node) -> Tensor:
    """Inputs without elements add nothing."""
    parts = [tensor for tensor in node.inputs if tensor is not None and tensor.elements]
    if not parts:
        raise node.refuse("no input has any elements")
    axis = axis_of(node, node.attribute("axis"), len(parts[0].shape))
    return joined(node, parts, axis)


def joined(node: Node, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors one after the other along an axis: more than one kernel takes in rounds, neighbours first."""
    left = list(parts)
    while len(left) > 1:
        groups = [left[first : first + MOST_INPUTS] for first in range(0, len(left), MOST_INPUTS)]
        left = [
            node.call("concat", {f"x{n}": part for n, part in enumerate(group)}, {"axis": axis})
            if len(group) > 1
            else group[0]
            for group in groups
        ]
    return left[0]


def part_of(node: Node, x: Tensor, bounds: list[tuple[int, int, int]]) -> Tensor:
    """The part of x within (start, end, step) of each axis; of a constant it is one."""
    shape = tuple(len(range(*bound)) for bound in bounds)
    if 0 in shape:
        return without_elements(node, x, shape)
    value = node.constant_value(x)
    if value is not None:
        return node.constant(np.ascontiguousarray(value[tuple(slice(*bound) for bound in bounds)]))
    if all(bound == (0, extent, 1) for bound, extent in zip(bounds, x.shape, strict=True)):
        return x
    low, high, steps = zip(*bounds, strict=True)
    return node.call("slice", {"x": x}, {"starts": low, "ends": high, "steps": steps})


def _split(node: Node) -> tuple[Tensor, ...]:
    x = node.given(0)
    axis = axis_of(node, node.attribute("axis", 0), len(x.shape))
    sizes = integers(node, 1, "split")
    if sizes is None:
        count = node.attribute("num_outputs", len(node.outputs))
        size = -(-x.shape[axis] // count)
        sizes = (*[size] * (count - 1), x.shape[axis] - size * (count - 1))
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise node.refuse(f"parts of {list(sizes)} of an axis of {x.shape[axis]}")
    parts, first = [], 0
    for size in sizes:
        bounds = [(0, extent, 1) for extent in x.shape]
        bounds[axis] = (first, first + size, 1)
        parts.append(part_of(node, x, bounds))
        first += size
    return tuple(parts)


ONNX = {
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
}
