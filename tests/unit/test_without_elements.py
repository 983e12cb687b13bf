"""Tensors without elements are known when a model is read: no kernel, no memory, no pointer is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kernels import graph, whole
from kernels.codegen.driver import driver_text
from kernels.codegen.example import network_example
from kernels.codegen.interface import whole_network
from kernels.graph.network import plan_network
from kernels.models.onnx_model import read_onnx
from kernels.plan import Plan
from kernels.program import Network, Role
from toolchains.target import find_target

TARGET = find_target("x86_64")


def read(
    folder: Path, nodes: list[onnx.NodeProto], shapes: dict[str, list[int]], outputs: list[str]
) -> Network:
    """A model of these nodes, read and optimised; `c` is a constant [2, 3]."""
    constants = [numpy_helper.from_array(np.ones((2, 3), np.float32), "c")]
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    for result in results:
        result.type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, results, [*constants, axes]),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return graph.optimise(read_onnx(path))


def value(network: Network, name: str) -> np.ndarray:
    """The constant that an output is a copy of."""
    (operator,) = (each for each in network.program.operators if name in each.outputs)
    return network.constants[operator.inputs[0]]


def test_a_fold_of_nothing_is_a_constant(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["y"]),
        helper.make_node("ReduceProd", ["x"], ["p"]),
    ]
    network = read(tmp_path, nodes, {"x": [0, 3]}, ["y", "p"])
    np.testing.assert_array_equal(value(network, "y"), np.zeros((1, 3)))
    np.testing.assert_array_equal(value(network, "p"), np.ones((1, 1)))
    assert [t.name for t in network.program.tensors if t.role is Role.INPUT] == ["x"]


def test_what_has_no_elements_is_left_out_of_what_has_some(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "first", "first"], ["none"]),
        helper.make_node("Concat", ["none", "x", "e"], ["y"], axis=0),
        helper.make_node("Add", ["none", "x1"], ["z"]),
    ]
    nodes.insert(0, helper.make_node("Constant", [], ["first"], value_ints=[1]))
    network = read(tmp_path, nodes, {"x": [2, 3], "x1": [1, 3], "e": [0, 3]}, ["y", "z"])
    shapes = {tensor.name: tensor.shape for tensor in network.program.tensors}
    assert shapes["y"] == (2, 3)
    assert shapes["z"] == (0, 3)
    assert all("z" not in operator.outputs for operator in network.program.operators)


def plan(folder: Path) -> Plan:
    """A network of one input and output without elements, and a pair with some."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Exp", ["e"], ["z"])]
    return plan_network(read(folder, nodes, {"x": [2, 3], "e": [0, 3]}, ["y", "z"]), TARGET)


def test_no_pointer_is_needed_for_them(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.network is not None
    assert [kernel.kind for kernel in made.kernels] == ["relu"]
    header = "\n".join(whole_network("m", made.network, ""))
    assert header.count("is not looked at and may be NULL") == 2
    stub = "define i32 @stub() {\n}\n"
    text = driver_text(stub, made, TARGET)
    run = text[text.index("@m_run(") : text.index("refused:")]
    # %inputs and %outputs themselves, x and y; then the part with the call.
    assert run.count(".aligned = ") == 4
    assert "static float inputs_e[1];" in network_example("m", made.network)


def test_a_run_is_judged_by_what_has_elements(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Exp", ["e"], ["z"])]
    network = read(tmp_path, nodes, {"x": [2, 3], "e": [0, 3]}, ["y", "z"])
    made = plan_network(network, TARGET).network
    assert made is not None
    reference = whole.compose(network)
    right = reference.outputs["y"].astype(np.float32)
    assert whole.input_bytes(made, reference, TARGET) == reference.inputs["x"].tobytes()
    assert whole.judge(made, reference, right.tobytes(), TARGET).passed
    assert not whole.judge(made, reference, (right + 1).tobytes(), TARGET).passed
