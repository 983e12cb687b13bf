"""The bits of elements, taken for another type of the same size."""

from __future__ import annotations

from collections.abc import Mapping
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
    exact,
    from_one_input,
    positive,
)
from kernels.operators.cast import NUMBERS
from kernels.operators.elementwise import OneInput
from kernels.operators.movement import Movement
from kernels.operators.node import Node, reshaped
from kernels.plan import Kernel
from kernels.program import ElementType, Tensor
from kernels.schedules.channels import emit_map


class BitsAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Element types of x and of y, of as many bytes."""

    x_type: ElementType
    y_type: ElementType


class BitsEntry(Entry, frozen=True, kw_only=True):
    """Bits taken for another type in a listing."""

    inputs: OneInput
    attributes: BitsAttributes


class BitCast(Movement):
    """y has the bits of x."""

    kind = "bit_cast"
    entry = BitsEntry
    attributes = BitsAttributes
    special_inputs = False

    def define(self, entry: BitsEntry) -> Definition:
        """Tensors x and y, of types of one size; no truth values are made, which are 0 and 1 alone."""
        words, shape = entry.attributes, positive("inputs.x", entry.inputs.x)
        if words.x_type.bytes != words.y_type.bytes or words.y_type is ElementType.BOOL:
            raise InputError(
                f"the bits of {words.x_type} are none of {words.y_type}", key="attributes.y_type"
            )
        definition = from_one_input(words, shape, shape)
        (x,) = definition.operands
        return msgspec.structs.replace(
            definition,
            operands=(msgspec.structs.replace(x, dtype=words.x_type),),
            output=msgspec.structs.replace(definition.output, dtype=words.y_type),
        )

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """A copy."""
        x, y = b.buffers["x"], b.buffers["y"]

        def body(index: Any, lanes: int) -> None:
            b.store(y, index, b.as_stored(y, b.load(x, index, lanes)))

        emit_map(b, kernel.output.elements, body)

    def reference(self, attributes: BitsAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        return exact(np.ascontiguousarray(arrays["x"]).view(numpy_type(attributes.y_type)))


def _bit_cast(node: Node) -> Tensor:
    x, wanted = node.given(0), NUMBERS.get(node.attribute("to"))
    if wanted is None:
        raise node.refuse(f"to element type {node.attribute('to')}")
    if wanted is x.dtype:
        return x
    words = {"x_type": x.dtype.value, "y_type": wanted.value}
    y = node.call("bit_cast", {"x": reshaped(node, x, x.shape or (1,))}, words)
    return reshaped(node, y, x.shape)


FAMILIES = (BitCast(),)
ONNX = {"BitCast": _bit_cast}
