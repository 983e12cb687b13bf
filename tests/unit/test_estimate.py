"""What an inspection says of targets is what a build makes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from kernels import graph
from kernels.estimate import estimates
from kernels.graph.network import plan_network
from kernels.models import read_model
from kernels.models.inspection import inspect_onnx
from kernels.program import Network
from tests.builders import bert
from tests.emulation.test_build import invoke
from toolchains.target import find_targets

DIMS = {"batch": 1, "sequence": 8}
TARGETS = find_targets("riscv64,x86_64-avx512")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    onnx.save(bert(layers=1), path)
    return path


def test_estimates_are_those_of_the_plan(model: Path) -> None:
    found = inspect_onnx(model, DIMS, TARGETS)
    network = read_model(model, DIMS)
    assert isinstance(network, Network)
    network = graph.optimise(network)
    assert found.targets == estimates(network, TARGETS)
    for target, estimate in zip(TARGETS, found.targets, strict=True):
        plan = plan_network(network, target)
        assert plan.network is not None
        assert (estimate.target, estimate.reason) == (target.name, "")
        assert estimate.arena_bytes == plan.network.arena_bytes >= estimate.live_bytes > 0
        assert estimate.weights_bytes == plan.network.weights_bytes > 0
        assert estimate.calls == len(plan.network.calls) >= estimate.kernels == len(plan.kernels)
        assert estimate.flops > 0
    assert inspect_onnx(model, DIMS).targets == ()


def test_what_has_no_plan_says_why(model: Path) -> None:
    network = read_model(model, DIMS)
    assert isinstance(network, Network)
    cut = {name: array.ravel()[:1] for name, array in network.constants.items()}
    (found,) = estimates(Network(program=network.program, constants=cut), TARGETS[:1])
    assert "elements" in found.reason
    assert found.arena_bytes == 0


def test_the_command_shows_a_row_for_each_target(model: Path) -> None:
    words = ["inspect", str(model), "--dim", "batch=1", "--dim", "sequence=8"]
    done = invoke(*words, "--arch", "riscv64,s390x")
    assert done.returncode == 0, done.stderr
    assert "arena bytes" in done.stdout
    assert {"riscv64", "s390x"} <= set(done.stdout.split())
    assert "arena bytes" not in invoke(*words).stdout
