"""Element-wise operators, alone or fused into another kernel's epilogue."""

from __future__ import annotations

from collections.abc import Mapping
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
    Shape,
    Words,
    exact,
    positive,
)
from kernels.plan import Kernel
from kernels.program import Role, Tensor
from kernels.schedules import channels
from toolchains.target import CPU


class NoAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator without attributes."""


class OneInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input x, of any shape."""

    x: Shape


class TwoInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs a and b: of one shape, or b a vector along the last axis of a."""

    a: Shape
    b: Shape


class _Map(ElementWise):
    """What element-wise operators share: one pass over memory."""

    input_scale = 8.0

    def define(self, entry: Any) -> Definition:
        """The inputs, and y with the shape of the first."""
        inputs = msgspec.to_builtins(entry.inputs)
        for name, shape in inputs.items():
            positive(f"inputs.{name}", tuple(shape))
        shapes = [tuple(shape) for shape in inputs.values()]
        if len(shapes) > 1 and shapes[1] not in (shapes[0], shapes[0][-1:]):
            raise InputError(
                f"inputs.b = {list(shapes[1])} must be the shape of a, {list(shapes[0])}, or its last axis",
                key="inputs.b",
            )
        return Definition(
            attributes=msgspec.to_builtins(getattr(entry, "attributes", NoAttributes())),
            operands=tuple(
                Tensor(name=name, shape=tuple(shape), role=Role.INPUT) for name, shape in inputs.items()
            ),
            output=Tensor(name="y", shape=shapes[0], role=Role.OUTPUT),
        )

    def flops(self, attributes: Any, shapes: Mapping[str, Shape]) -> int:
        """One for each element."""
        return int(np.prod(shapes["y"]))

    def plan(
        self, attributes: Any, shapes: Mapping[str, Shape], weights: frozenset[str], cpu: CPU
    ) -> Planned:
        """Nothing to decide."""
        return Planned()

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Whole arrays as one row where shapes are equal, else row by row."""
        attributes = msgspec.convert(kernel.attributes, self.attributes)
        first, *others = [o.name for o in kernel.operands if o.name in ("x", "a", "b")]
        columns = kernel.output.shape[-1]
        rows = kernel.output.elements // columns
        broadcast = any(kernel.operand(name).elements != kernel.output.elements for name in others)
        if not broadcast and not kernel.epilogue:
            rows, columns = 1, kernel.output.elements
        with b.loop(0, rows) as row:

            def body(column: Any, lanes: int) -> None:
                place = row * columns + column
                operand = None
                for name in others:
                    operand = b.load(b.buffers[name], column if broadcast else place, lanes)
                value = b.let(b.load(b.buffers[first], place, lanes))
                value = self.apply(b, attributes, value, operand)
                b.store(b.buffers["y"], place, epilogue(value, row, column))

            channels.emit_map(b, columns, body)

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """The function applied to exact inputs."""
        first, *others = [arrays[name] for name in ("x", "a", "b") if name in arrays]
        return self.apply_estimate(attributes, exact(first), others[0] if others else None)


class AddEntry(Entry, frozen=True, kw_only=True):
    """An addition in a listing."""

    inputs: TwoInputs


class Add(_Map):
    """y = a + b; fused as `bias` (a vector along the last axis) or `add` (a residual)."""

    kind = "add"
    entry = AddEntry
    attributes = NoAttributes
    words: ClassVar[Words] = {"bias": {}, "add": {}}

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """One addition."""
        return value + operand

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """One more rounding, and the operand's magnitude."""
        addend = np.asarray(operand, dtype=np.float64)
        return Estimate(
            value=estimate.value + addend,
            magnitude=np.maximum(estimate.magnitude, np.abs(estimate.value)) + np.abs(addend),
            roundings=estimate.roundings + 1,
        )


class MapEntry(Entry, frozen=True, kw_only=True):
    """An operator of one input in a listing."""

    inputs: OneInput


class Relu(_Map):
    """y = max(x, 0), with NaN kept."""

    kind = "relu"
    entry = MapEntry
    attributes = NoAttributes
    words: ClassVar[Words] = {"relu": {}}

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """Comparing this way round keeps NaN, and is one instruction on most processors."""
        value = b.let(value)
        zero = b.constant(0.0, b.lanes(value))
        return b.select(value < zero, zero, value)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """No rounding; distances do not grow."""
        return msgspec.structs.replace(estimate, value=np.maximum(estimate.value, 0.0))


class ClipAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interval that results are confined to."""

    minimum: float
    maximum: float


class ClipEntry(Entry, frozen=True, kw_only=True):
    """A clip in a listing."""

    inputs: OneInput
    attributes: ClipAttributes


class Clip(_Map):
    """y = min(max(x, minimum), maximum), with NaN kept; fused as `relu6` for [0, 6]."""

    kind = "clip"
    entry = ClipEntry
    attributes = ClipAttributes
    words: ClassVar[Words] = {"relu6": {"minimum": 0.0, "maximum": 6.0}}

    def define(self, entry: ClipEntry) -> Definition:
        """As for every element-wise operator; the interval must not be empty."""
        if not entry.attributes.minimum <= entry.attributes.maximum:
            raise InputError(
                "attributes.minimum must not exceed attributes.maximum", key="attributes.minimum"
            )
        return super().define(entry)

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """Two comparisons."""
        value = b.let(value)
        low = b.constant(attributes.minimum, b.lanes(value))
        high = b.constant(attributes.maximum, b.lanes(value))
        raised = b.let(b.select(value < low, low, value))
        return b.select(raised > high, high, raised)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """The interval's ends are rounded to float32 as in the kernel; distances do not grow."""
        low, high = np.float32(attributes.minimum), np.float32(attributes.maximum)
        value = np.clip(estimate.value, np.float64(low), np.float64(high))
        return msgspec.structs.replace(estimate, value=value)
