"""Models of ONNX: read operator by operator, right before any pass has touched them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
