"""Networks as onnxruntime's quantiser makes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime import quantization

from tests import builders
from tests.networks import Array, generator, model

FORMATS = {
    "operators": quantization.QuantFormat.QOperator,
    "pairs": quantization.QuantFormat.QDQ,
    "dynamic": None,
}
"""Operators on integers; pairs of QuantizeLinear and DequantizeLinear; scales found at run time."""
SIZE = 12


class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    """A few random images to find scales by."""

    def __init__(self) -> None:
        random = generator("images")
        self._left: Iterator[Array] = iter([random.standard_normal((1, 3, SIZE, SIZE)) for _ in range(4)])

    def get_next(self) -> dict[str, Array] | None:
        """The next one, None after the last."""
        image = next(self._left, None)
        return None if image is None else {"image": image.astype("float32")}


def small() -> onnx.ModelProto:
    """A network of a few layers, of the kinds that the quantiser knows."""
    g = builders.Graph("small")
    layer = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    x = g.node("Relu", g.node("Conv", "image", g.weight(8, 3, 3, 3), **layer))
    y = g.node("Conv", x, g.weight(8, 1, 3, 3), g.weight(8), **layer, group=8)
    y = g.node("LeakyRelu", g.node("Add", x, y), alpha=0.1)
    y = g.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    z = g.node("Sigmoid", g.node("Conv", y, g.weight(8, 8, 1, 1), kernel_shape=[1, 1]))
    y = g.node("Concat", g.node("Mul", y, z), z, axis=1)
    y = g.node("Flatten", g.node("GlobalAveragePool", y), axis=1)
    g.node("Gemm", y, g.weight(10, 16), g.weight(10), transB=1)
    g.nodes[-1].output[0] = "scores"
    return model(g.nodes, {"image": (1, 3, SIZE, SIZE)}, ["scores"], g.constants, opset=17)


def quantized(kind: str, folder: Path) -> Path:
    """The small network, quantised."""
    onnx.save(small(), folder / "small.onnx")
    path = folder / f"small_{kind}.onnx"
    logging.getLogger().setLevel(logging.ERROR)  # it recommends what it can do first
    if FORMATS[kind] is None:
        quantization.quantize_dynamic(folder / "small.onnx", path)
    else:
        quantization.quantize_static(
            folder / "small.onnx", path, Images(), quant_format=FORMATS[kind], per_channel=True
        )
    return path
