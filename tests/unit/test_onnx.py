"""Models of ONNX: read operator by operator, right before any pass has touched them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import onnx
import pytest
from onnx import helper

from kernels.models import read_model
from kernels.program import Network, Role
from tests import networks

SMALL = ("squeezenet", "shufflenet")
LARGE = ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "vgg19", "zfnet512")
LIGHT = [*SMALL, *(pytest.param(name, marks=pytest.mark.everything) for name in LARGE)]


def read(path: Path, **dims: int) -> Network:
    network = read_model(path, dims)
    assert isinstance(network, Network)
    return network


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_network_is_right_as_it_is_read(name: str, tmp_path: Path) -> None:
    path = networks.filled(name, tmp_path)
    network = read(path)
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_inputs_and_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    program = read(networks.filled("squeezenet", tmp_path)).program
    assert program.form == "network"
    assert program.name == "squeezenet"
    assert [t.name for t in program.tensors if t.role is Role.INPUT] == ["data_0"]
    assert [t.name for t in program.tensors if t.role is Role.OUTPUT] == ["softmaxout_1"]
    assert program.tensor("data_0").shape == (1, 3, 224, 224)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_are_counted_as_onnxruntime_counts_them(op: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes, names = [], []
    for kernel, stride, before, after, ceil in product((1, 2, 3), (1, 2, 3), (0, 1, 2), (0, 1, 2), (0, 1)):
        if max(before, after) < kernel:
            names.append(f"y{len(names)}")
            attributes = {"kernel_shape": [kernel], "strides": [stride], "pads": [before, after]}
            nodes.append(helper.make_node(op, ["x"], names[-1:], ceil_mode=ceil, **attributes))
    for size in (3, 4, 5):
        onnx.save(networks.model(nodes, {"x": (1, 2, size)}, names), path)
        network = read(path)
        inputs = networks.inputs_of(network)
        networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))
        for name, value in networks.expected(path, inputs).items():
            assert network.program.tensor(name).shape == value.shape


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_whole_images_are_onnxruntimes(p: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node("GlobalLpPool", ["x"], ["y"], p=p)
    onnx.save(networks.model([node], {"x": (2, 3, 5, 7)}, ["y"]), path)
    network = read(path)
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_is_added_as_onnxruntime_adds_it(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes, constants, names = [], {}, []
    for kernel, stride in product((1, 2, 3, 4), (1, 2, 3)):
        names.append(f"y{len(names)}")
        weights = f"w{len(names)}"
        constants[weights] = networks.weights(weights, (2, 3, kernel, kernel))
        nodes.append(
            helper.make_node("Conv", ["x", weights], names[-1:], auto_pad=mode, strides=[stride, stride])
        )
    for size in (5, 6, 7):
        onnx.save(networks.model(nodes, {"x": (1, 3, size, size + 1)}, names, constants), path)
        network = read(path)
        inputs = networks.inputs_of(network)
        networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))
