"""Operators with indices: right as they are read and after all passes, and which branch is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kernels import graph
from kernels.errors import InputError
from tests import networks
from tests.unit.test_onnx import read

Array = np.ndarray[Any, Any]
RANDOM = networks.generator("indices")


def indices(*shape: int, below: int) -> Array:
    """Numbers of an axis, from either end."""
    return RANDOM.integers(-below, below, shape)


def permuted(*shape: int, axis: int) -> Array:
    """Numbers of which each is there once along an axis, so that updates need no order."""
    return np.argsort(RANDOM.uniform(size=shape), axis=axis)


CASES: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    # operator, attributes, inputs but x [3, 5, 7]
    "elements": ("GatherElements", {"axis": 1}, [indices(3, 4, 7, below=5)]),
    "fewer elements": ("GatherElements", {"axis": -1}, [indices(2, 3, 9, below=7)]),
    "parts": ("GatherND", {}, [indices(4, 2, below=3)]),
    "parts of batches": ("GatherND", {"batch_dims": 1}, [indices(3, 2, 1, below=5)]),
    "one element": ("GatherND", {}, [np.array([1, 2, 3])]),
    "scattered": ("ScatterElements", {"axis": 2}, [permuted(3, 5, 7, axis=2)[..., :4], (3, 5, 4)]),
    "scattered sums": (
        "ScatterElements",
        {"axis": 1, "reduction": "add"},
        [indices(3, 9, 7, below=5), (3, 9, 7)],
    ),
    "scattered parts": ("ScatterND", {}, [np.array([[0, 4], [-1, 0]]), (2, 7)]),
    "largest parts": ("ScatterND", {"reduction": "max"}, [indices(6, 1, below=3), (6, 5, 7)]),
    "upper": ("Trilu", {"upper": 1}, [np.array(1)]),
    "lower": ("Trilu", {"upper": 0}, [np.array(-2)]),
    "sums so far": ("CumSum", {"exclusive": 1, "reverse": 1}, [np.array(-2)]),
    "turned": ("ReverseSequence", {"batch_axis": 0, "time_axis": 1}, [np.array([1, 5, 3])]),
    "chosen": ("Compress", {"axis": 1}, [np.array([True, False, False, True])]),
    "hardmax": ("Hardmax", {"axis": 1}, []),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("constant", [False, True], ids=["given", "constant"])
def test_what_indices_choose_is_right(name: str, tmp_path: Path, *, constant: bool) -> None:
    op, attributes, others = CASES[name]
    inputs: dict[str, Array] = {"x": RANDOM.uniform(-1, 1, (3, 5, 7)).astype(np.float32)}
    for number, other in enumerate(others):
        value = RANDOM.uniform(-1, 1, other) if isinstance(other, tuple) else other
        inputs[f"i{number}"] = value.astype(np.float32) if value.dtype == np.float64 else value
    static = constant or op in ("Trilu", "CumSum", "Compress")
    constants = {key: inputs.pop(key) for key in list(inputs) if static and key != "x"}
    node = helper.make_node(op, ["x", *(f"i{n}" for n in range(len(others)))], ["y"], **attributes)
    check(tmp_path, [node], inputs, constants, ["y"])


def check(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Array],
    constants: dict[str, Array],
    outputs: list[str],
) -> None:
    types = {key: helper.np_dtype_to_tensor_dtype(value.dtype) for key, value in inputs.items()}
    path = folder / "m.onnx"
    shapes = {key: value.shape for key, value in inputs.items()}
    onnx.save(networks.model(nodes, shapes, outputs, constants, types=types), path)
    network = read(path)
    wanted = networks.expected(path, inputs)
    for each in (network, graph.optimise(network)):
        networks.assert_same(networks.run(each, inputs), wanted)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_images_are_sampled_as_onnxruntime_samples_them(mode: str, padding: str, tmp_path: Path) -> None:
    inputs = {
        "x": RANDOM.uniform(-1, 1, (2, 3, 5, 7)).astype(np.float32),
        "grid": RANDOM.uniform(-2, 2, (2, 4, 6, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node(
            "GridSample",
            ["x", "grid"],
            [f"y{corners}"],
            mode=mode,
            padding_mode=padding,
            align_corners=corners,
        )
        for corners in (0, 1)
    ]
    check(tmp_path, nodes, inputs, {}, ["y0", "y1"])


@pytest.mark.parametrize("largest", [0, 1])
def test_the_largest_and_where_they_are(largest: int, tmp_path: Path) -> None:
    x = RANDOM.integers(-3, 4, (3, 9, 2)).astype(np.float32)
    nodes = [helper.make_node("TopK", ["x", "k"], ["y", "places"], axis=1, largest=largest)]
    nodes.append(helper.make_node("Cast", ["places"], ["p"], to=TensorProto.FLOAT))
    check(tmp_path, nodes, {"x": x}, {"k": np.array([4])}, ["y", "p"])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_of_numbers_from_either_end(axis: int, tmp_path: Path) -> None:
    constants = {"depth": np.array(6), "values": np.array([-1, 2], np.float32)}
    nodes = [helper.make_node("OneHot", ["i", "depth", "values"], ["y"], axis=axis)]
    check(tmp_path, nodes, {"i": indices(2, 9, below=8)}, constants, ["y"])


def chosen(condition: str, result: str) -> onnx.NodeProto:
    """If, whose branches name what they make as others' do, and read x from around them."""
    branches = {}
    for key, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        inner = [
            helper.make_node(op, ["x"], ["t"]),
            helper.make_node("Add", ["t", "c"], ["s"]),
        ]
        made = helper.make_tensor_value_info("s", TensorProto.FLOAT, (3, 4))
        value = helper.make_tensor("c", TensorProto.FLOAT, [], [float(len(op))])
        branches[key] = helper.make_graph(inner, key, [], [made], [value])
    return helper.make_node("If", [condition], [result], name=f"choice of {result}", **branches)


@pytest.mark.parametrize("holds", [False, True])
def test_the_branch_that_is_taken_is_compiled(tmp_path: Path, *, holds: bool) -> None:
    """Twice, so that tensors of the same names must be told apart."""
    nodes = [chosen("holds", "a"), chosen("fails", "b"), helper.make_node("Sub", ["a", "b"], ["y"])]
    constants = {"holds": np.array(holds), "fails": np.array(not holds)}
    x = RANDOM.uniform(-1, 1, (3, 4)).astype(np.float32)
    check(tmp_path, nodes, {"x": x}, constants, ["y"])


@pytest.mark.parametrize("holds", [0.0, 1.0])
def test_a_condition_that_nobody_knows_yet_chooses_at_run_time(tmp_path: Path, holds: float) -> None:
    nodes = [helper.make_node("Cast", ["b"], ["holds"], to=TensorProto.BOOL), chosen("holds", "y")]
    x = RANDOM.uniform(-1, 1, (3, 4)).astype(np.float32)
    check(tmp_path, nodes, {"x": x, "b": np.full(1, holds, np.float32)}, {}, ["y"])


def test_a_result_whose_shape_depends_on_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node("NonZero", ["x"], ["y"], name="n")
    onnx.save(networks.model([node], {"x": (3, 4)}, ["y"], types={"y": TensorProto.INT64}), path)
    with pytest.raises(InputError, match=r"node 'n' \(NonZero\): .* depends on the values"):
        read(path)
