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

ROUNDING = ("accuracy_level",)
"""Attributes by which factors are rounded to bytes first, for speed."""
MOST_INPUTS = 16
MIDDLE = 128
"""Between the least of the signed bytes and of the unsigned ones."""
FACTORS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "ConvInteger": ((1, 2, 3),),
    "DynamicQuantizeLSTM": ((1, -1, 9), (2, -1, 11)),
    "DynamicQuantizeMatMul": ((1, -1, 3),),
    "MatMulInteger": ((1, 2, 3),),
    "MatMulIntegerToFloat": ((1, 4, 5),),
    "MatMulNBits": (),
    "QAttention": ((1, 6, 7),),
    "QGemm": ((3, 2, 5),),
    "QLinearConv": ((3, 2, 5),),
    "QLinearMatMul": ((3, 2, 5),),
}
"""Of each product the number of the second factor, of the first one's zero point, and of its own.

Where the first one has none among the inputs, it is unsigned.
"""


def make_exact(model: onnx.ModelProto) -> None:
    """Shift signed constants of products, and their zero points with them; round no factors.

    What the nodes of the graph compute does not change; those of graphs inside them are left.
    """
    known = {each.name: each for each in model.graph.initializer}
    made: dict[str, Array] = {}
    for node in model.graph.node:
        kept = [each for each in node.attribute if each.name not in ROUNDING]
        if len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)
        names = [*node.input, *[""] * MOST_INPUTS]
        for factor, other, zero in FACTORS.get(node.op_type, ()):
            if not _signed(known, names[factor]) or (names[zero] and not _signed(known, names[zero])):
                continue
            if other >= 0 and _signed(known, names[other]):
                continue
            for number in (factor, zero):
                given = (
                    numpy_helper.to_array(known[names[number]]) if names[number] else np.zeros((), np.int8)
                )
                names[number] = f"{names[number]}/unsigned"
                made[names[number]] = (given.astype(np.int16) + MIDDLE).astype(np.uint8)
        while len(names) > len(node.input) and not names[-1]:
            del names[-1]
        node.input[:] = names
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in made.items())


def _signed(known: Mapping[str, onnx.TensorProto], name: str) -> bool:
    return name in known and known[name].data_type == onnx.TensorProto.INT8
