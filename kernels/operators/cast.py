"""Elements of one type as elements of another."""

from __future__ import annotations

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
    Shape,
    Shapes,
    drawn,
    exact,
    from_one_input,
    positive,
    widened,
)
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, reshaped
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Tensor
from kernels.schedules.channels import emit_map

NUMBERS = {
    1: ElementType.FLOAT32,
    2: ElementType.UINT8,
    3: ElementType.INT8,
    6: ElementType.INT32,
    7: ElementType.INT64,
    9: ElementType.BOOL,
    10: ElementType.FLOAT16,
    16: ElementType.BFLOAT16,
}
"""Element types by the numbers that ONNX gives them."""
LONG = 8
"""Bytes of an element that not every processor's vectors hold."""


class CastAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Element types of x and of y."""

    x_type: ElementType = ElementType.INT64
    y_type: ElementType = ElementType.FLOAT32


class CastEntry(Entry, frozen=True, kw_only=True):
    """A conversion in a listing."""

    inputs: OneInput
    attributes: CastAttributes = CastAttributes()


class Cast(Family):
    """y = x in another type, as ONNX converts.

    Floating-point numbers are rounded to nearest, ties to even; those that become integers are
    cut towards zero, and integers that do not fit keep their low bits. What ONNX leaves open:
    numbers beyond int32, or int64, become its least or its largest, and NaN becomes 0.
    """

    kind = "cast"
    entry = CastEntry
    attributes = CastAttributes
    fuses = False

    def define(self, entry: CastEntry) -> Definition:
        """Tensors x and y."""
        given = entry.attributes
        if given.x_type is given.y_type:
            raise InputError(f"from {given.x_type} to itself is no conversion", key="attributes.y_type")
        shape = positive("inputs.x", entry.inputs.x)
        definition = from_one_input(given, shape, shape)
        (x,) = definition.operands
        return msgspec.structs.replace(
            definition,
            operands=(msgspec.structs.replace(x, dtype=given.x_type),),
            output=msgspec.structs.replace(definition.output, dtype=given.y_type),
        )

    def typed(self, definition: Definition, dtype: ElementType) -> Definition:
        """Both types are attributes."""
        return definition

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Numbers of all sizes."""
        return drawn(generator, operand, RANGE, special=True)

    def carried(self, attributes: Any, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Elements are on their own, wherever they lie."""
        return attributes

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """One for each element."""
        return prod(shapes["x"])

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """In vectors, but for what LLVM gets wrong or calls for: 64 bits, floats cut, int8 as floats.

        LLVM 22 reads two int8 that become floats without their signs on POWER9, and what it makes
        of floats that become integers by RISC-V's vectors ends the emulator.
        """
        x, y = b.buffers["x"], b.buffers["y"]
        result = kernel.output.dtype

        def body(at: Any, lanes: int) -> None:
            value = b.let(b.read(x, at, lanes))
            if result is ElementType.BOOL:
                b.write(y, at, b.differ(value, b.like(0, value)))
            elif result.floating:
                b.write(y, at, value if b.is_real(value) else b.real(value))
            elif b.is_real(value):
                b.write(y, at, _whole(b, value, result))
            else:
                b.write(y, at, b.cast(value, result.value))

        given = kernel.operand("x").dtype
        cut = given.floating and not (result.floating or result is ElementType.BOOL)
        signed_bytes = given is ElementType.INT8 and result.floating
        if cut or signed_bytes or LONG in (given.bytes, result.bytes):
            with b.loop(0, kernel.output.elements) as number:
                body(number, 1)
        else:
            emit_map(b, kernel.output.elements, body)

    def reference(self, attributes: CastAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Exact but for int64 as a float: beyond 32 bits both halves round, and so does their sum."""
        x, kind = arrays["x"], numpy_type(attributes.y_type)
        if attributes.y_type is ElementType.BOOL:
            return exact(x != 0)
        if not attributes.y_type.floating:
            return exact(_cut(x, kind))
        value = widened(x).astype(np.float64)
        if attributes.x_type.floating or attributes.x_type.bytes == 1:
            return exact(value)
        return Estimate(value=value, magnitude=2 * np.abs(value), roundings=3)


RANGE = 300.0
"""Of drawn numbers: beyond 8 bits."""


def _whole(b: Any, value: Any, result: ElementType) -> Any:
    """A float32 cut to an integer; nothing that a processor, or LLVM, leaves open is asked of it."""
    value = b.let(b.select(b.differ(value, value), b.like(0, value), value))
    if result is ElementType.INT64:
        return _long(b, value)
    low, high = b.like(-(2.0**31), value), b.like(2.0**31, value)
    fits = b.select(value < high, b.select(value < low, low, value), low)
    number = b.select(value < high, b.cast(b.let(fits), "int32"), b.integer(2**31 - 1, b.lanes(value)))
    return number if result is ElementType.INT32 else b.cast(b.let(number), result.value)


def _long(b: Any, value: Any) -> Any:
    """The significand shifted by the exponent: 32-bit processors convert to no more than 32 bits."""
    lanes = b.lanes(value)
    bits = b.let(b.as_int(value))
    exponent = b.let(((bits >> b.integer(23, lanes)) & b.integer(0xFF, lanes)) - b.integer(150, lanes))
    significand = b.let(b.cast((bits & b.integer(0x7FFFFF, lanes)) | b.integer(0x800000, lanes), "int64"))
    none, most = b.integer(0, lanes), b.integer(40, lanes)
    up = b.let(b.cast(b.select(exponent > none, b.select(exponent < most, exponent, none), none), "int64"))
    down = none - exponent
    down = b.select(
        exponent < none, b.select(down < b.integer(24, lanes), down, b.integer(24, lanes)), none
    )
    size = b.let((significand >> b.cast(b.let(down), "int64")) << up)
    zero = b.like(0, size)
    signed = b.let(b.select(bits < none, zero - size, size))
    least = b.constant(-(2**63), lanes, "int64")
    signed = b.let(b.select(value <= b.like(-(2.0**63), value), least, signed))
    return b.select(value < b.like(2.0**63, value), signed, b.constant(2**63 - 1, lanes, "int64"))


def _cut(x: Array, kind: np.dtype[Any]) -> Array:
    """What ONNX says, and what `_whole` says where ONNX does not."""
    if x.dtype.kind in "iub":
        return x.astype(kind)
    wide = widened(x)
    value = np.trunc(np.where(np.isnan(wide), 0.0, wide))
    info = np.iinfo(np.int64 if kind == np.int64 else np.int32)
    low, high = float(info.min), -float(info.min)
    inside = np.where((value >= low) & (value < high), value, 0.0).astype(info.dtype)
    cut = np.where(value >= high, info.max, np.where(value < low, info.min, inside))
    return cut.astype(info.dtype).astype(kind)


def cast(node: Node, x: Tensor, wanted: ElementType) -> Tensor:
    """X in another type; constant bytes are converted at once."""
    if wanted is x.dtype:
        return x
    value = node.constant_value(x)
    if value is not None and value.itemsize == 1 and wanted in (ElementType.FLOAT32, ElementType.INT32):
        return node.constant(value.astype(numpy_type(wanted)))
    words = {"x_type": x.dtype.value, "y_type": wanted.value}
    return reshaped(node, node.call("cast", {"x": reshaped(node, x, x.shape or (1,))}, words), x.shape)


def _cast(node: Node) -> Tensor:
    wanted = NUMBERS.get(node.attribute("to"))
    if wanted is None:
        raise node.refuse(f"to element type {node.attribute('to')}")
    return cast(node, node.given(0), wanted)


def _cast_like(node: Node) -> Tensor:
    like = node.inputs[1]
    if like is None:
        raise node.refuse("there is nothing to be like")
    return cast(node, node.given(0), like.dtype)


FAMILIES = (Cast(),)
ONNX = {"Cast": _cast, "CastLike": _cast_like}
