"""Whole numbers as floating-point ones."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    from_one_input,
    positive,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, reshaped
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Tensor

NUMBERS = {1: ElementType.FLOAT32, 6: ElementType.INT32, 7: ElementType.INT64}
"""Element types by the numbers that ONNX gives them."""


class CastAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Element type of x."""

    x_type: ElementType = ElementType.INT64


class CastEntry(Entry, frozen=True, kw_only=True):
    """A conversion in a listing."""

    inputs: OneInput
    attributes: CastAttributes = CastAttributes()


class Cast(Family):
    """y = x, rounded to float32."""

    kind = "cast"
    entry = CastEntry
    attributes = CastAttributes
    fuses = False

    def define(self, entry: CastEntry) -> Definition:
        """Tensors x, of whole numbers, and y."""
        if entry.attributes.x_type is ElementType.FLOAT32:
            raise InputError("attributes.x_type must be int32 or int64", key="attributes.x_type")
        shape = positive("inputs.x", entry.inputs.x)
        definition = from_one_input(entry.attributes, shape, shape)
        (x,) = definition.operands
        return msgspec.structs.replace(
            definition, operands=(msgspec.structs.replace(x, dtype=entry.attributes.x_type),)
        )

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Numbers of all sizes."""
        bits = generator.integers(0, 8 * operand.dtype.bytes, operand.shape)
        info = np.iinfo(operand.dtype.value)
        numbers = generator.integers(info.min, info.max, operand.shape, dtype=operand.dtype.value)
        return np.asarray(numbers >> bits).astype(operand.dtype.value)

    def carried(self, attributes: Any, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Elements are on their own, wherever they lie."""
        return attributes

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """One for each element."""
        return prod(shapes["x"])

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """One number after the other, without what a 32-bit processor has no instruction for."""
        x, y = b.buffers["x"], b.buffers["y"]
        with b.loop(0, kernel.output.elements) as at:
            b.store(y, at, b.real(b.load(x, at, 1)))

    def reference(self, attributes: CastAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Beyond 32 bits both halves round, and so does their sum."""
        value = arrays["x"].astype(np.float64)
        return Estimate(value=value, magnitude=2 * np.abs(value), roundings=3)


def _cast(node: Node) -> Tensor:
    x, wanted = node.given(0), NUMBERS.get(node.attribute("to"))
    if wanted is x.dtype:
        return x
    if wanted is not ElementType.FLOAT32:
        raise node.refuse(f"from {x.dtype} to element type {node.attribute('to')}")
    flat = reshaped(node, x, x.shape or (1,))
    return reshaped(node, node.call("cast", {"x": flat}, {"x_type": x.dtype.value}), x.shape)


FAMILIES = (Cast(),)
ONNX = {"Cast": _cast}
