"""Real networks, whole: one on each target in every run, all of them on all targets by `invoke test --all`.

The package's nine are judged twice: by the outputs that it expects, at its own tolerance, of the
constant weights with which it ships them; and by onnxruntime with random weights in their place, for
constant ones hide what is laid out wrongly. What passed is kept in `build/networks`, so that
the long run goes on where it was interrupted. Networks of other packages are taken as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kernels.models.oracle import OnnxRuntime, Oracle, oracle_for
from kernels.program import Network, Role
from kernels.whole import Reference
from tests import builders, networks, quantized, shipped
from tests.unit.test_onnx import LARGE, SMALL
from toolchains.batch import build_all
from toolchains.cache import ROOT, code_digest, digest
from toolchains.checking import NOT_SAMPLED
from toolchains.engines.local import LocalEngine
from toolchains.making import Options
from toolchains.pipeline import Built, bring, build
from toolchains.progress import Progress
from toolchains.target import Target, all_targets, find_target

QUIET = Progress(quiet=True)
LIGHT = (*SMALL, *LARGE)
KEPT = ROOT / "build" / "networks"
AT_ONCE = 4
"""Targets whose libraries of one network are kept at a time."""
MADE: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, int]]] = {
    "mobilenet_v2": (builders.mobilenet_v2, {}),
    "mobilenet_v3_small": (builders.mobilenet_v3, {}),
    "mobilenet_v3_large": (lambda: builders.mobilenet_v3(large=True), {}),
    "bert_base": (
        lambda: builders.bert(layers=12, hidden=768, heads=12, vocabulary=30522),
        {"batch": 1, "sequence": 128},
    ),
}


class Published(Oracle):
    """What the onnx package expects of its own networks, by the inputs of its own runner."""

    def __init__(self, name: str) -> None:
        data = json.loads((networks.LIGHT.parent / "real" / f"test_{name}" / "data.json").read_text())
        self._relative, self._absolute = float(data["rtol"]), float(data["atol"])
        self._outputs = networks.LIGHT / f"light_{name}_output_0.pb"
        self.identity = f"onnx {onnx.__version__}: {self._outputs.name}"

    def ask(self, network: Network) -> Reference:
        tensors = network.program.tensors
        (given,) = (tensor for tensor in tensors if tensor.role is Role.INPUT)
        (made,) = (tensor for tensor in tensors if tensor.role is Role.OUTPUT)
        ramp = np.arange(given.elements).reshape(given.shape) / given.elements
        wanted = onnx.TensorProto.FromString(self._outputs.read_bytes())
        output = numpy_helper.to_array(wanted).reshape(made.shape)
        return Reference(
            source=self.identity,
            inputs={given.name: ramp.astype(np.float32)},
            outputs={made.name: output},
            normwise=self._absolute / float(np.abs(output).max()),
            relative=self._relative,
        )


def brought(path: Path, **dims: int) -> Network:
    network = bring(path, dims)
    assert isinstance(network, Network)
    return network


def assert_right(built: Built, source: str) -> None:
    """Everything that ran passed, the whole run among it; what did not run says why."""
    assert [(row.kernel, row.reason) for row in built.report.failed()] == []
    assert not built.report.broken()
    assert built.report.reference.startswith(source)
    rows = [row for row in built.report.rows if row.kernel == "run"]
    assert rows
    for row in rows:
        skipped = ("older than", "processor lacks", NOT_SAMPLED)
        assert row.status == "pass" or any(each in row.reason for each in skipped), row


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_a_real_network_runs_whole_on_every_target(
    target: Target, options: Options, tmp_path: Path
) -> None:
    """MobileNet v3 small for 96 x 96 pixels: SqueezeNet takes two minutes where QEMU emulates vectors."""
    path = tmp_path / "mobilenet_v3_small.onnx"
    onnx.save(builders.mobilenet_v3(96), path)
    sampled = msgspec.structs.replace(options, checks="sample")
    built = build(brought(path), target, sampled, QUIET, oracle_for(path))
    assert_right(built, "onnxruntime")


TARGETS = sorted(all_targets())
EACH_ON_ONE = {
    name: "riscv64" if name == "silero_vad" else TARGETS[number % len(TARGETS)]
    for number, name in enumerate(shipped.MODELS)
}


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("silero_vad", "silero_vad_8k")
        else pytest.param(name, marks=pytest.mark.everything)
        for name in shipped.MODELS
    ],
)
def test_a_shipped_network_runs_whole_each_on_one_target(name: str, options: Options) -> None:
    path, dims = shipped.need(name)
    sampled = msgspec.structs.replace(options, checks="sample")
    network = bring(path, dims)
    assert isinstance(network, Network)
    built = build(network, find_target(EACH_ON_ONE[name]), sampled, QUIET, oracle_for(path, dims))
    assert_right(built, "onnxruntime")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("operators", "s390x"),
        ("dynamic", "armv7"),
        pytest.param("pairs", "riscv64", marks=pytest.mark.everything),
    ],
)
def test_a_network_that_onnxruntime_quantised_runs_whole(
    kind: str, target: str, options: Options, tmp_path: Path
) -> None:
    path = quantized.quantized(kind, tmp_path)
    built = build(brought(path), find_target(target), options, QUIET, oracle_for(path))
    assert_right(built, "onnxruntime")


def everywhere(network: Network, oracle: Oracle, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Build it for all targets, a few at once, and say how far that is.

    Of what passed a mark is kept, until code changes, and not the library: one network's come to gigabytes.
    """
    name, code = network.program.name, code_digest("kernels", "toolchains")
    marks = {
        target.name: KEPT / "passed" / digest(code, name, target.name, oracle.identity)
        for target in all_targets().values()
    }
    left = [target for target in all_targets().values() if not marks[target.name].exists()]
    engine = LocalEngine()
    options = Options(engine=engine, jobs=2, out=KEPT / "dist", build=KEPT, checks="sample")
    for some in (left[at : at + AT_ONCE] for at in range(0, len(left), AT_ONCE)):
        with capsys.disabled():
            built, failures = build_all([network], some, options, Progress(), {name: oracle})
        assert [str(each.error) for each in failures] == []
        assert [each.target for each in built] == [target.name for target in some]
        for each in built:
            assert_right(each, source)
            marks[each.target].parent.mkdir(parents=True, exist_ok=True)
            marks[each.target].touch()
            shutil.rmtree(KEPT / each.target / name)
            each.archive.unlink()
    engine.close()


@pytest.mark.everything
@pytest.mark.parametrize("name", LIGHT)
def test_a_light_network_is_what_its_package_expects(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    oracle = Published(name)
    everywhere(brought(networks.LIGHT / f"light_{name}.onnx"), oracle, oracle.identity, capsys)


@pytest.mark.everything
@pytest.mark.parametrize("name", LIGHT)
def test_a_light_network_with_random_weights_is_onnxruntimes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = networks.filled(name, tmp_path)
    everywhere(brought(path), oracle_for(path), "onnxruntime", capsys)


@pytest.mark.everything
@pytest.mark.parametrize("name", MADE)
def test_a_network_that_no_package_ships_is_onnxruntimes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, dims = MADE[name]
    path = tmp_path / f"{name}.onnx"
    onnx.save(make(), path)
    everywhere(brought(path, **dims), OnnxRuntime(path), "onnxruntime", capsys)
