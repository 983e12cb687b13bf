"""Quantised products are exact: sums longer than float32 holds are put together of shorter ones."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from kernels import graph
from kernels.models.onnx_model import read_onnx
from kernels.models.oracle import OnnxRuntime
from kernels.operators.quantization import MOST_TERMS
from tests import networks

TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


def whole(name: str, kind: Any, *shape: int) -> NDArray[Any]:
    """Integers of all sizes, the extremes among them."""
    info = np.iinfo(kind)
    array = networks.generator(name).integers(info.min, info.max, shape, endpoint=True).astype(kind)
    array.reshape(-1)[:2] = info.min, info.max
    return array


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_long_product_is_exact(tmp_path: Path, kind: Any) -> None:
    terms = 2 * MOST_TERMS + 5
    a, b = whole("a", kind, 3, terms), whole("b", kind, terms, 2)
    a[0], b[:, 0] = np.iinfo(kind).max, np.iinfo(kind).max  # the largest sum that there is
    zero = kind(0)
    node = helper.make_node("MatMulInteger", ["a", "b", "z", "z"], ["y"])
    judge(tmp_path, [node], {"a": a, "b": b, "z": np.array(zero)}, {})


@pytest.mark.parametrize("constant", [True, False])
def test_a_deep_convolution_is_exact(tmp_path: Path, constant: bool) -> None:
    x, w = whole("x", np.uint8, 1, 64, 5, 4), whole("w", np.uint8, 3, 64, 3, 3)
    x[:, :, 1:4], w[0] = 255, 0
    zeros = {"zx": np.array(3, np.uint8), "zw": np.array(255, np.uint8)}
    node = helper.make_node("ConvInteger", ["x", "w", "zx", "zw"], ["y"], pads=[1, 1, 1, 1])
    known = {"w": w, **zeros} if constant else {}
    judge(tmp_path, [node], {"x": x} | ({} if constant else {"w": w, **zeros}), known)


def judge(
    folder: Path,
    nodes: list[onnx.NodeProto],
    given: dict[str, NDArray[Any]],
    known: dict[str, NDArray[Any]],
) -> None:
    """Read, optimise and compute it by the families' references; integers must be as ONNX's own."""
    types = {name: TYPES[array.dtype.type] for name, array in given.items()} | {"y": TensorProto.INT32}
    shapes = {name: array.shape for name, array in given.items()}
    model = networks.model(nodes, shapes, ["y"], known, opset=18, types=types)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    network = graph.optimise(read_onnx(path))
    products = [each for each in network.program.operators if each.kind in ("gemm", "exact_conv2d")]
    assert len(products) > 1  # parts of the sum, and none longer than float32 holds
    for operator in products:
        shape = network.program.tensor(operator.inputs[1]).shape
        assert prod(shape[:-1] if operator.kind == "gemm" else shape[1:]) <= MOST_TERMS
    assert MOST_TERMS * 255**2 <= 1 << 24
    (expected,) = ReferenceEvaluator(model).run(None, given)
    np.testing.assert_array_equal(networks.run(network, given)["y"], expected)


def test_a_whole_run_is_judged_by_what_onnx_defines(tmp_path: Path) -> None:
    """Sums of two products of a byte and a signed one do not fit 16 bits, as some processors add them."""
    steps = {"s": np.float32(1 / 255), "z": np.uint8(0), "t": np.float32(1), "v": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "t", "v"], ["e"]),
        helper.make_node("Conv", ["d", "e"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "t", "v"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "v"], ["y"]),
    ]
    w = np.full((4, 8, 1, 1), 127, np.int8)
    w[:, 4:] = -120
    known = {name: np.array(value) for name, value in steps.items()} | {"w": w}
    model = networks.model(nodes, {"x": (1, 8, 5, 5)}, ["y"], known, opset=21)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    network = graph.optimise(read_onnx(path))
    reference = OnnxRuntime(path).ask(network)
    (defined,) = ReferenceEvaluator(model).run(None, dict(reference.inputs))
    np.testing.assert_allclose(reference.outputs["y"], defined, atol=1)
    assert np.abs(networks.run(network, reference.inputs)["y"] - defined).max() <= 1
