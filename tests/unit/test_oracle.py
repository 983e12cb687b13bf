"""What onnxruntime says of a network: how far off float32 may be, and which inputs say anything."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kernels.models.onnx_model import read_onnx
from kernels.models.oracle import MOST, OnnxRuntime, distance, shifted
from kernels.whole import NORMWISE, Reference, digest, load, save
from tests import networks

H = helper.make_node


def asked(folder: Path, nodes: list[onnx.NodeProto], inputs: dict[str, int], big: float = 1e4) -> Reference:
    """Of a model of inputs [5] by type, and a constant."""
    path = folder / "m.onnx"
    constants = {"big": np.array([big], np.float32), "w": np.full((5, 5), 0.3, np.float32)}
    onnx.save(networks.model(nodes, dict.fromkeys(inputs, (5,)), ["y"], constants, types=inputs), path)
    return OnnxRuntime(path).ask(read_onnx(path))


def test_a_well_conditioned_network_is_held_to_the_common_bound(tmp_path: Path) -> None:
    reference = asked(tmp_path, [H("Relu", ["x"], ["y"])], {"x": TensorProto.FLOAT})
    assert (reference.normwise, reference.looser) == (NORMWISE, {})
    assert "move" not in reference.source


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64])
def test_what_amplifies_may_be_off_by_what_it_makes_of_roundings(kind: int, tmp_path: Path) -> None:
    """The sine of large numbers; whole numbers have no neighbours, so weights are moved instead."""
    nodes = [
        H("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        H("MatMul", ["f", "w"], ["p"]),
        H("Mul", ["p", "big"], ["s"]),
        H("Sin", ["s"], ["y"]),
    ]
    reference = asked(tmp_path, nodes, {"x": kind})
    assert 1e-3 < reference.looser["y"] < MOST
    assert "move by" in reference.source
    assert asked(tmp_path, nodes, {"x": kind}, big=1e6).looser == {"y": MOST}
    save(reference, tmp_path / "kept.npz")
    assert digest(load(tmp_path / "kept.npz")) == digest(reference)
    assert digest(msgspec.structs.replace(reference, looser={"y": 0.5})) != digest(reference)


def test_lengths_of_nothing_are_not_what_a_network_is_judged_by(tmp_path: Path) -> None:
    """Of 0 and 1 some element would be a division by zero: with all of them nothing is left."""
    nodes = [
        H("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        H("ReduceMin", ["f"], ["least"]),
        H("Div", ["big", "least"], ["q"]),
        H("Add", ["x", "q"], ["y"]),
    ]
    reference = asked(tmp_path, nodes, {"x": TensorProto.FLOAT, "n": TensorProto.INT64})
    assert reference.inputs["n"].tolist() == [1] * 5
    assert np.isfinite(reference.outputs["y"]).all()


def test_an_output_without_a_number_is_told(tmp_path: Path) -> None:
    nodes = [H("Log", ["minus"], ["l"]), H("Mul", ["x", "l"], ["y"])]
    nodes.insert(0, H("Neg", ["big"], ["minus"]))
    reference = asked(tmp_path, nodes, {"x": TensorProto.FLOAT})
    assert reference.source.endswith("; no number is in 'y'")


def test_neighbours_of_numbers() -> None:
    given = {"x": np.ones(64, np.float32), "n": np.arange(3)}
    moved = shifted(given, 0)
    assert sorted(set(moved["x"].tolist())) == [1 - 2.0**-24, 1 + 2.0**-23]
    assert moved["n"] is given["n"]


def test_distances_are_of_what_is_finite() -> None:
    one, other = np.array([2.0, np.inf, np.nan, 1.0]), np.array([2.0, np.inf, np.nan, 0.5])
    assert (distance(one, other), distance(np.zeros(2), np.zeros(2))) == (0.25, 0.0)


def test_an_output_is_not_held_to_less_for_another_one(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes = [H("Mul", ["x", "big"], ["s"]), H("Sin", ["s"], ["steep"]), H("Relu", ["x"], ["y"])]
    constants = {"big": np.array([1e4], np.float32)}
    onnx.save(networks.model(nodes, {"x": (5,)}, ["steep", "y"], constants), path)
    assert list(OnnxRuntime(path).ask(read_onnx(path)).looser) == ["steep"]
