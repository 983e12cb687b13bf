"""Branches, loops, sequences and optional values: written out as onnxruntime executes them, or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels import graph
from kernels.errors import InputError
from kernels.models import onnx_control
from kernels.models.onnx_model import read_onnx
from tests import networks
from tests.conformance.selection import Array, as_array, collected

H = helper.make_node
OPS = {
    *("If", "Loop", "Scan", "SequenceAt", "SequenceConstruct", "SplitToSequence", "ConcatFromSequence"),
    *("Optional", "OptionalGetElement", "OptionalHasElement", "SequenceInsert", "SequenceMap"),
}
BY_OTHERS = re.compile("test_(linear_attention_fp16|scan_sum)")
"""Of half precision, which `tests/conformance` judges; and of opset 8."""


def value(name: str, shape: list[int] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def loop_body(nodes: list[onnx.NodeProto], carried: list[str], made: list[str]) -> onnx.GraphProto:
    """Reads the trip's number i, go and what is carried; gives on, and what is made."""
    inputs = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL)]
    outputs = [value("on", None, TensorProto.BOOL), *(value(name, None) for name in made)]
    return helper.make_graph(nodes, "body", inputs + [value(name, None) for name in carried], outputs)


def cell() -> onnx.GraphProto:
    """One step of a recurrent cell, over x and with weights from around it."""
    nodes = [
        H("Gather", ["x", "i"], ["t"], axis=0),
        H("MatMul", ["t", "W"], ["a"]),
        H("MatMul", ["h", "R"], ["b"]),
        H("Add", ["a", "b"], ["s"]),
        H("Tanh", ["s"], ["next"]),
        H("Identity", ["next"], ["seen"]),
        H("Identity", ["go"], ["on"]),
    ]
    return loop_body(nodes, ["h"], ["next", "seen"])


def model(
    folder: Path, nodes: list[onnx.NodeProto], inputs: dict[str, Array], constants: dict[str, Any]
) -> Path:
    path = folder / "m.onnx"
    shapes = {name: given.shape for name, given in inputs.items()}
    types = {name: helper.np_dtype_to_tensor_dtype(given.dtype) for name, given in inputs.items()}
    made = networks.model(
        nodes, shapes, ["y"], {k: np.asarray(v) for k, v in constants.items()}, types=types
    )
    onnx.save(made, path)
    return path


def check(path: Path, inputs: dict[str, Array]) -> None:
    network = read_onnx(path)
    wanted = networks.expected(path, inputs)
    for each in (network, graph.optimise(network)):
        networks.assert_same(networks.run(each, inputs), wanted)


RANDOM = networks.generator("control")
X = RANDOM.uniform(-1, 1, (70, 1, 5)).astype(np.float32)
WEIGHTS = {
    "h0": np.zeros((1, 8), np.float32),
    "W": RANDOM.uniform(-1, 1, (5, 8)).astype(np.float32),
    "R": RANDOM.uniform(-0.5, 0.5, (8, 8)).astype(np.float32),
}


def branch(nodes: list[onnx.NodeProto], *outputs: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [value(name, None) for name in outputs])


@pytest.mark.parametrize("bound", [-1e3, 1e3])
def test_of_an_if_that_is_decided_at_run_time_both_branches_are_computed(
    bound: float, tmp_path: Path
) -> None:
    """Their tensors have the same names; one of them has another such If inside."""
    inner = H(
        "If",
        ["is"],
        ["t"],
        then_branch=branch([H("Neg", ["x"], ["t"])], "t"),
        else_branch=branch([H("Identity", ["x"], ["t"])], "t"),
        name="inner",
    )
    node = H(
        "If",
        ["is"],
        ["one", "other"],
        then_branch=branch([H("Sqrt", ["x"], ["t"]), H("Exp", ["t"], ["u"])], "t", "u"),
        else_branch=branch([H("Identity", ["x"], ["v"]), inner, H("Add", ["t", "x"], ["u"])], "v", "u"),
        name="outer",
    )
    nodes = [
        H("ReduceSum", ["x"], ["sum"], keepdims=1),
        H("Reshape", ["sum", "flat"], ["number"]),
        H("Less", ["number", "bound"], ["is"]),
        node,
        H("Concat", ["one", "other"], ["y"], axis=0),
    ]
    constants = {"bound": np.full(1, bound, np.float32), "flat": np.ones(1, np.int64)}
    check(model(tmp_path, nodes, {"x": X}, constants), {"x": X})


def test_branches_of_two_shapes_are_not_chosen_from_at_run_time(tmp_path: Path) -> None:
    node = H(
        "If",
        ["is"],
        ["y"],
        then_branch=branch([H("Neg", ["x"], ["t"])], "t"),
        else_branch=branch([H("ReduceSum", ["x"], ["t"], keepdims=1)], "t"),
        name="outer",
    )
    given = {"x": X, "is": np.ones((), np.bool_)}
    said = r"node 'outer' \(If\): its condition .* must be constant: .*\[70, 1, 5\] .*--dim is="
    with pytest.raises(InputError, match=said):
        read_onnx(model(tmp_path, [node], given, {}))


@pytest.mark.parametrize("output", ["last", "all"])
def test_a_loop_is_its_iterations(output: str, tmp_path: Path) -> None:
    """More of them than one concatenation joins."""
    node = H("Loop", ["n", "yes", "h0"], ["last", "all"], body=cell(), name="rnn")
    constants = {**WEIGHTS, "n": np.int64(len(X)), "yes": np.array(True)}  # noqa: FBT003 - a tensor
    check(model(tmp_path, [node, H("Neg", [output], ["y"])], {"x": X}, constants), {"x": X})


def test_a_loop_ends_when_its_condition_does(tmp_path: Path) -> None:
    """Without a trip count; the condition is computed of constants. Two loops share their names inside."""
    nodes = [H("Less", ["i", "three"], ["on"]), H("Mul", ["s", "x"], ["r"])]
    body = loop_body(nodes, ["s"], ["r"])
    loops = [
        H("Loop", ["", "", "x"], ["a"], body=body, name="first"),
        H("Loop", ["", "yes", "a"], ["y"], body=body, name="second"),
    ]
    x = RANDOM.uniform(0.5, 2, (2, 3)).astype(np.float32)
    constants = {"three": np.int64(3), "yes": np.array(True)}  # noqa: FBT003 - a tensor
    path = model(tmp_path, loops, {"x": x}, constants)
    network = read_onnx(path)
    (found,) = networks.run(network, {"x": x}).values()
    np.testing.assert_allclose(found, x**9, rtol=1e-6)


def test_a_loop_that_does_not_begin_gives_what_it_was_given(tmp_path: Path) -> None:
    body = loop_body([H("Relu", ["s"], ["r"]), H("Identity", ["go"], ["on"])], ["s"], ["r"])
    nodes = [H("Loop", ["n", "", "x"], ["r"], body=body), H("Neg", ["r"], ["y"])]
    x = RANDOM.uniform(-1, 1, (2, 3)).astype(np.float32)
    check(model(tmp_path, nodes, {"x": x}, {"n": np.int64(0)}), {"x": x})


@pytest.mark.parametrize("ways", [(0, 0, 0, 0), (1, 1, 0, 1), (-1, 0, 2, 1)])
def test_a_scan_along_any_axis_and_backwards(ways: tuple[int, ...], tmp_path: Path) -> None:
    axis, back, stacked, turned = ways
    nodes = [H("Add", ["s", "e"], ["t"]), H("Mul", ["t", "half"], ["u"]), H("Identity", ["u"], ["seen"])]
    body = helper.make_graph(
        nodes,
        "body",
        [value("s", None), value("e", None)],
        [value("u", None), value("seen", None)],
        [numpy_helper.from_array(np.float32(0.5).reshape(()), "half")],
    )
    words = {
        "scan_input_axes": [axis],
        "scan_input_directions": [back],
        "scan_output_axes": [stacked],
        "scan_output_directions": [turned],
    }
    scan = H("Scan", ["s0", "x"], ["last", "y"], body=body, num_scan_inputs=1, name="scan", **words)
    x = RANDOM.uniform(-1, 1, (4, 4, 4)).astype(np.float32)
    check(model(tmp_path, [scan], {"x": x}, {"s0": np.zeros((4, 4), np.float32)}), {"x": x})


@pytest.mark.parametrize(
    ("split", "words", "joined"),
    [
        (None, {"axis": 1}, {"axis": 0}),
        (None, {"axis": 0, "keepdims": 0}, {"axis": 1, "new_axis": 1}),
        (np.int64(2), {"axis": 1}, None),
        (np.array([1, 3, 1]), {"axis": -1}, None),
    ],
)
def test_a_sequence_is_the_tensors_in_it(
    split: Any, words: dict[str, int], joined: dict[str, int] | None, tmp_path: Path
) -> None:
    """Cut, one taken out and put in again elsewhere, counted, joined."""
    constants: dict[str, Any] = {"last": np.int64(-1), "one": np.int64(1)}
    if split is not None:
        constants["split"] = split
    nodes = [
        H("SplitToSequence", ["x", "split"] if split is not None else ["x"], ["s"], **words),
        H("SequenceAt", ["s", "last"], ["e"]),
        H("SequenceErase", ["s", "one"], ["t"]),
        H("SequenceInsert", ["t", "e", "one"], ["u"]),
        H("SequenceLength", ["u"], ["count"]),
        H("Cast", ["count"], ["c"], to=TensorProto.FLOAT),
        H("ConcatFromSequence", ["u"], ["j"], **(joined or {"axis": words["axis"]})),
        H("Mul", ["j", "c"], ["y"]),
    ]
    x = RANDOM.uniform(-1, 1, (4, 5)).astype(np.float32)
    check(model(tmp_path, nodes, {"x": x}, constants), {"x": x})


def test_tests_of_onnx_with_branches_loops_and_sequences(tmp_path: Path) -> None:
    """All whose inputs and outputs are tensors; those of whole numbers and scalars are known ahead."""
    tried = 0
    for test in collected():
        made = test.model.graph
        tensors = all(each.type.HasField("tensor_type") for each in (*made.input, *made.output))
        if not tensors or BY_OTHERS.match(test.name) or OPS.isdisjoint(node.op_type for node in made.node):
            continue
        tried += 1
        copy = onnx.ModelProto()
        copy.CopyFrom(test.model)
        ((inputs, outputs),) = test.data_sets
        given = {each.name: as_array(data) for each, data in zip(made.input, inputs, strict=True)}
        known = {name for name, data in given.items() if data.dtype.kind in "iub" or not data.shape}
        del copy.graph.input[:]
        for name, data in given.items():
            if name in known:
                copy.graph.initializer.append(numpy_helper.from_array(data, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(data.dtype)
                copy.graph.input.append(helper.make_tensor_value_info(name, kind, data.shape))
        path = tmp_path / "m.onnx"
        onnx.save(copy, path)
        found = networks.run(graph.optimise(read_onnx(path)), given)
        for each, data in zip(made.output, outputs, strict=True):
            wanted = as_array(data).astype(np.float64)
            got = np.asarray(found[each.name], np.float64).reshape(wanted.shape)
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6, err_msg=test.name)
    assert tried == 31


RELU = loop_body([H("Relu", ["s"], ["r"]), H("Identity", ["go"], ["on"])], ["s"], ["r"])
STACK = loop_body(
    [H("Relu", ["s"], ["r"]), H("Relu", ["s"], ["t"]), H("Identity", ["go"], ["on"])], ["s"], ["r", "t"]
)
ASKS = loop_body(
    [
        H("Relu", ["s"], ["r"]),
        H("ReduceMax", ["s"], ["m"], keepdims=0),
        H("Cast", ["m"], ["on"], to=TensorProto.BOOL),
    ],
    ["s"],
    ["r"],
)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [H("Shape", ["x"], ["s"]), H("Loop", ["n", "", "x"], ["y"], body=RELU, name="l")],
            {},
            r"node 'l' \(Loop\): its trip count \('n'\) must be constant: its iterations are written out",
        ),
        (
            [H("Loop", ["k", "", "x"], ["y"], body=ASKS, name="l")],
            {"k": np.int64(3)},
            r"node 'l' \(Loop\): its condition \('l.0/on'\) must be constant",
        ),
        (
            [H("Loop", ["", "", "x"], ["y"], body=RELU, name="l")],
            {},
            r"node 'l' \(Loop\): its iterations, written out, come to more than 60 nodes",
        ),
        (
            [H("Loop", ["k", "", "x"], ["r", "y"], body=STACK, name="l")],
            {"k": np.int64(0)},
            r"node 'l' \(Loop\): 'y' holds nothing, and nobody knows of what shape",
        ),
        (
            [H("SequenceConstruct", ["x"], ["s"]), H("SequenceAt", ["s", "k"], ["y"], name="at")],
            {"k": np.int64(1)},
            r"node 'at' \(SequenceAt\): position 1 of 1",
        ),
        (
            [H("SequenceConstruct", ["x"], ["s"]), H("SequenceAt", ["s", "n"], ["y"], name="at")],
            {},
            r"node 'at' \(SequenceAt\): its position \('n'\) must be constant",
        ),
    ],
)
def test_what_is_not_known_when_a_model_is_read_is_refused(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_control, "MOST_NODES", 60)
    x, n = np.ones((2, 3), np.float32), np.int64(2)
    path = model(tmp_path, nodes, {"x": x, "n": np.asarray(n)}, constants)
    with pytest.raises(InputError, match=message):
        read_onnx(path)


def test_functions_of_nodes_that_are_named_alike_are_told_apart(tmp_path: Path) -> None:
    """The second one's is computed when the model is read, of tensors that the first one's has too."""
    nodes = [
        H("MeanVarianceNormalization", ["x"], ["a"], name="n", axes=[0, 1]),
        H("MeanVarianceNormalization", ["c"], ["b"], name="n", axes=[0, 1]),
        H("Add", ["a", "b"], ["y"]),
    ]
    x, c = (RANDOM.uniform(-1, 1, (3, 4)).astype(np.float32) for _ in range(2))
    (found,) = networks.run(read_onnx(model(tmp_path, nodes, {"x": x}, {"c": c})), {"x": x}).values()
    wanted = sum((each - each.mean()) / (each.std() + 1e-9) for each in (x, c))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_output_that_is_a_sequence_is_refused(tmp_path: Path) -> None:
    (test,) = (each for each in collected() if each.name == "test_split_to_sequence_nokeepdims")
    path = tmp_path / "m.onnx"
    onnx.save(test.model, path)
    with pytest.raises(InputError, match="output 'seq': 'seq' is a sequence, where a tensor is due"):
        read_onnx(path)


def test_many_tensors_in_a_sequence_are_joined_though_some_are_the_same(tmp_path: Path) -> None:
    """More than a concatenation joins, and groups of them that begin with the same one."""
    nodes = [H("Neg", ["x"], ["a"]), H("Abs", ["x"], ["b"])]
    names = ["x", *["a"] * 63, "x", *["b"] * 63]
    nodes += [H("SequenceConstruct", names, ["s"]), H("ConcatFromSequence", ["s"], ["y"], axis=0)]
    x = RANDOM.uniform(-1, 1, (2, 3)).astype(np.float32)
    check(model(tmp_path, nodes, {"x": x}, {}), {"x": x})


@pytest.mark.parametrize("position", [-2, -1, 0, 1, 2])
def test_places_for_what_is_put_in_count_those_that_are_there(position: int, tmp_path: Path) -> None:
    nodes = [
        H("Neg", ["x"], ["a"]),
        H("Abs", ["x"], ["b"]),
        H("Exp", ["x"], ["c"]),
        H("SequenceConstruct", ["a", "b"], ["s"]),
        H("SequenceInsert", ["s", "c", "at"], ["t"]),
        H("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]
    x = RANDOM.uniform(-1, 1, (2, 3)).astype(np.float32)
    check(model(tmp_path, nodes, {"x": x}, {"at": np.int64(position)}), {"x": x})


def test_what_a_sequence_holds_is_stacked_if_it_is_of_one_shape(tmp_path: Path) -> None:
    nodes = [
        H("Transpose", ["x"], ["t"]),
        H("SequenceConstruct", ["x", "t"], ["s"]),
        H("ConcatFromSequence", ["s"], ["y"], axis=0, new_axis=1, name="all"),
    ]
    path = model(tmp_path, nodes, {"x": X[0]}, {})
    with pytest.raises(InputError, match=r"'y' would hold tensors of the shapes \[1, 5\] and \[5, 1\]"):
        read_onnx(path)


def test_branches_may_say_that_their_results_are_open(tmp_path: Path) -> None:
    """As -1, which is no size."""
    made = value("t", [-1, 3])
    branches = {
        key: helper.make_graph([H(op, ["x"], ["t"])], key, [], [made])
        for key, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    x = RANDOM.uniform(-1, 1, (2, 3)).astype(np.float32)
    nodes = [H("If", ["yes"], ["y"], **branches)]
    path = tmp_path / "m.onnx"
    graph_ = helper.make_graph(
        nodes,
        "g",
        [value("x", [2, 3])],
        [value("y", None)],
        [numpy_helper.from_array(np.array(True), "yes")],  # noqa: FBT003
    )
    onnx.save(helper.make_model(graph_, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    check(path, {"x": x})
