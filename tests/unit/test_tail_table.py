"""The table of nodes that TVM's importer is trusted with, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from kernels import graph, whole
from kernels.errors import InputError
from kernels.models import read_model
from kernels.models.inspection import inspect_onnx
from kernels.models.onnx_tail import TAIL, decoded, evaluated
from kernels.operators import find_family
from kernels.plan import Kernel, Operand
from kernels.program import ElementType, Network
from tests.tail_networks import PLACES, Evaluator, detector

FLOAT, LONG, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.FLOAT16


def one(
    folder: Path,
    op: str,
    inputs: dict[str, tuple[int, list[int]]],
    outputs: dict[str, int],
    **attributes: object,
) -> Path:
    """A model of one node, whose outputs are without a shape."""
    node = helper.make_node(op, list(inputs), list(outputs), name="the node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def read(path: Path) -> Network:
    network = read_model(path)
    assert isinstance(network, Network)
    return network


def test_a_network_is_read_and_composed_as_the_evaluator_says(tmp_path: Path) -> None:
    path = detector(tmp_path)
    network = graph.optimise(read(path))
    kinds = [operator.kind for operator in network.program.operators]
    assert kinds.count("onnx") == 2
    wanted = Evaluator(path).ask(network)
    found = whole.compose(network)
    for name, value in wanted.outputs.items():
        np.testing.assert_allclose(found.outputs[name], value, rtol=1e-4, atol=1e-5)


def test_a_node_is_plain_data_and_a_model_of_its_own(tmp_path: Path) -> None:
    program = read(detector(tmp_path)).program
    (operator,) = [each for each in program.operators if each.name == "take"]
    assert operator.kind == "onnx"
    model = decoded(str(operator.attributes["model"]))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["RoiAlign"] == [operator.attributes["op"]]
    assert [each.name for each in model.graph.input] == ["x0", "x1", "x2"]
    assert operator.operands == ("x0", "x1", "x2", "y")


def test_halves_are_widened_around_a_node(tmp_path: Path) -> None:
    inputs = {"x": (HALF, [2, 3, 8, 9]), "rois": (HALF, [4, 4]), "numbers": (LONG, [4])}
    program = read(one(tmp_path, "RoiAlign", inputs, {"y": HALF}, **PLACES)).program
    assert [each.kind for each in program.operators] == ["cast", "cast", "onnx", "cast", "reshape"]
    (node,) = [each for each in program.operators if each.kind == "onnx"]
    assert node.attributes["types"] == "float32,float32,int64,float32"
    assert program.tensor("y").dtype is ElementType.FLOAT16


ROI = {"x": (FLOAT, [2, 3, 8, 9]), "rois": (FLOAT, [4, 4]), "numbers": (LONG, [4])}
REFUSED = [
    ("RoiAlign", ROI, FLOAT, {"mode": "max", **PLACES}, "mode is max; TVM's importer is trusted with avg"),
    ("RoiAlign", ROI, FLOAT, {}, "half_pixel; TVM's importer is trusted with output_half_pixel"),
    (
        "MaxPool",
        {"x": (onnx.TensorProto.UINT8, [1, 2, 8, 9])},
        onnx.TensorProto.UINT8,
        {"kernel_shape": [2, 2], "ceil_mode": 1},
        "ceil_mode is 1; TVM's importer is trusted with 0",
    ),
    (
        "NonMaxSuppression",
        {"boxes": (FLOAT, [1, 6, 4]), "scores": (FLOAT, [1, 1, 6])},
        LONG,
        {},
        "the shape of its result depends on the values of its inputs",
    ),
]


@pytest.mark.parametrize(("op", "inputs", "result", "words", "why"), REFUSED)
def test_what_the_table_does_not_hold_is_told_beforehand(
    op: str,
    inputs: dict[str, tuple[int, list[int]]],
    result: int,
    words: dict[str, object],
    why: str,
    tmp_path: Path,
) -> None:
    path = one(tmp_path, op, inputs, {"y": result}, **words)
    with pytest.raises(InputError) as raised:
        read(path)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)
    (missing,) = inspect_onnx(path, {}).missing
    assert missing.node == "the node"
    assert missing.op == op
    assert why in missing.reason


def test_inputs_of_checks_are_within_what_a_node_takes(tmp_path: Path) -> None:
    program = read(one(tmp_path, "RoiAlign", ROI, {"y": FLOAT}, **PLACES)).program
    (operator,) = [each for each in program.operators if each.kind == "onnx"]
    family = find_family("onnx")
    numbers = Operand(name="x2", role="input", shape=(4,), layout="rows", dtype=ElementType.INT64)
    kernel = Kernel(
        name="k",
        symbol="k",
        kind="onnx",
        attributes=operator.attributes,
        epilogue=(),
        operands=(numbers,),
        schedule={},
        arena_bytes=0,
        flops=0,
    )
    drawn = family.drawn_for(kernel, np.random.default_rng(1), numbers)
    assert drawn.dtype == np.int64
    assert set(drawn.tolist()) <= {0, 1}
    model = str(operator.attributes["model"])
    random = np.random.default_rng(2)
    arrays = {"x0": random.random((2, 3, 8, 9)), "x1": random.random((4, 4)) * 8, "x2": drawn}
    assert evaluated(model, arrays).dtype == np.float64


def test_a_broken_model_is_no_node() -> None:
    with pytest.raises(InputError, match="no ONNX model in base 64"):
        decoded("not base 64")


def test_rows_say_what_they_were_checked_by() -> None:
    for op, row in TAIL.items():
        assert row.tests, op
        assert row.types, op
        onnx.defs.get_schema(op)
