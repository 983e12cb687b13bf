"""Operators that ONNX defines as functions of others, taken by what they are made of."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from kernels.errors import InputError
from tests import networks
from tests.unit.test_onnx import read

X = {"x": (2, 3, 4)}


@pytest.mark.parametrize("given", [{"axes": [0, 2]}, {}], ids=["axes", "default"])
def test_a_function_becomes_its_body_under_the_name_of_its_node(
    tmp_path: Path, given: dict[str, list[int]]
) -> None:
    path = tmp_path / "m.onnx"
    nodes = [helper.make_node("MeanVarianceNormalization", ["x"], ["y"], name="mvn", **given)]
    onnx.save(networks.model(nodes, {"x": (2, 3, 4, 5)}, ["y"]), path)
    network = read(path)
    assert {operator.name.split("/")[0] for operator in network.program.operators} == {"mvn", "y"}
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_what_is_not_needed_of_a_function_is_left_out(tmp_path: Path) -> None:
    """Of a layer's normalisation the mean is wanted, which its importer refuses, and not the deviation."""
    path = tmp_path / "m.onnx"
    nodes = [helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean"], name="ln", axis=2)]
    constants = {"s": networks.weights("s", (4,))}
    onnx.save(networks.model(nodes, X, ["y", "mean"], constants), path)
    network = read(path)
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_an_error_inside_a_function_names_the_node_and_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(networks.model([helper.make_node("Bernoulli", ["x"], ["y"], name="coin")], X, ["y"]), path)
    with pytest.raises(InputError, match=r"node 'coin' \(Bernoulli\): .*RandomUniformLike of its function"):
        read(path)
