"""Products of bytes as onnxruntime computes them exactly on every processor.

Where an x86 processor has no VNNI, onnxruntime multiplies unsigned bytes by signed ones in
instructions that saturate sums of two products at 16 bits (its documentation, "Quantize ONNX Models",
"When and why do I need to try U8U8?"). Unsigned by unsigned bytes it never does so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from kernels.operators.base import Array

MIDDLE = 128
"""Between the least of the signed bytes and of the unsigned ones."""
FACTORS: Mapping[str, tuple[int, int, int]] = {
    "ConvInteger": (1, 2, 3),
    "DynamicQuantizeMatMul": (1, -1, 3),
    "MatMulInteger": (1, 2, 3),
    "MatMulIntegerToFloat": (1, 4, 5),
    "QAttention": (1, 6, 7),
    "QGemm": (3, 2, 5),
    "QLinearConv": (3, 2, 5),
    "QLinearMatMul": (3, 2, 5),
}
"""Of each product the number of the second factor, of the first one's zero point, and of its own."""


def make_unsigned(model: onnx.ModelProto) -> None:
    """Shift signed constants of products, and their zero points with them.

    What the products are does not change.
    """
    known = {each.name: each for each in model.graph.initializer}
    made: dict[str, Array] = {}
    for node in model.graph.node:
        factor, other, zero = FACTORS.get(node.op_type, (len(node.input), 0, 0))
        names = [*node.input, *[""] * (zero + 1 - len(node.input))]
        if factor >= len(node.input) or not _signed(known, names[factor]):
            continue
        if (names[zero] and not _signed(known, names[zero])) or (
            other > 0 and _signed(known, names[other])
        ):
            continue
        for number in (factor, zero):
            given = numpy_helper.to_array(known[names[number]]) if names[number] else np.zeros((), np.int8)
            names[number] = f"{names[number]}/unsigned"
            made[names[number]] = (given.astype(np.int16) + MIDDLE).astype(np.uint8)
        node.input[:] = names
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in made.items())


def _signed(known: Mapping[str, onnx.TensorProto], name: str) -> bool:
    return name in known and known[name].data_type == onnx.TensorProto.INT8
