"""Nodes that TVM's importer takes: in networks, on several targets, against ONNX's reference evaluator."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from kernels import whole
from kernels.errors import InputError
from kernels.models.onnx_tail import TAIL
from kernels.program import Network
from kernels.whole import Reference
from tests.emulation.test_whole import QUIET, Fixed, runs, symbols
from tests.tail_networks import MORE, Evaluator, detector, every, trusting
from toolchains.making import Options
from toolchains.pipeline import bring, build
from toolchains.target import all_targets, find_target


@pytest.mark.parametrize("name", ["riscv64", "x86_64"])
def test_a_network_with_nodes_of_the_tail_is_right(name: str, options: Options, tmp_path: Path) -> None:
    path = detector(tmp_path)
    built = build(bring(path), find_target(name), options, QUIET, Evaluator(path))
    assert not built.report.failed()
    assert not built.report.broken()
    assert built.report.reference == Evaluator.identity
    assert [row.status for row in runs(built)] == ["pass"] * len(runs(built))
    kinds = [kernel.operator for kernel in built.manifest.kernels]
    assert kinds.count("onnx") == 2
    _, undefined = symbols(options.build / name / "detector" / "libdetector.so")
    assert undefined <= {"memcpy", "memset", "memmove"}
    again = build(bring(path), find_target(name), options, QUIET, Evaluator(path))
    assert again.cached
    assert again.sha256 == built.sha256


def test_a_node_of_every_row_is_right(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_row_on("armv7", options, tmp_path, monkeypatch)


@pytest.mark.everything
@pytest.mark.parametrize("name", all_targets())
def test_a_node_of_every_row_is_right_on_every_target(
    name: str, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_row_on(name, options, tmp_path, monkeypatch)


def each_row_on(name: str, options: Options, folder: Path, patch: pytest.MonkeyPatch) -> None:
    path = every(folder)
    with trusting(patch):
        network = bring(path)
    assert isinstance(network, Network)
    nodes = [each for each in network.program.operators if each.kind == "onnx"]
    assert {each.attributes["op"] for each in nodes} == TAIL.keys() | MORE.keys()
    built = build(network, find_target(name), options, QUIET, Evaluator(path))
    assert not built.report.failed()
    assert not built.report.broken()
    runs(built)


def test_no_index_leaves_its_buffer_whatever_the_data_are(options: Options, tmp_path: Path) -> None:
    """Results are anything then, but the guards around each buffer hold."""
    network = bring(detector(tmp_path))
    assert isinstance(network, Network)
    ends = np.array([[np.nan, np.inf, -np.inf, 1e38], [-1e38, 1e9, -1e9, 3e9]], np.float32)
    inputs = {
        **whole.draw_inputs(network),
        "rois": np.resize(ends, (5, 4)),
        "numbers": np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max, -1, 2, 1 << 33]),
    }
    outputs = {"y": np.zeros((5, 4, 3, 5), np.float32)}
    hostile = Reference(source="nobody", inputs=inputs, outputs=outputs)
    built = build(network, find_target("x86_64"), options, QUIET, Fixed(hostile, "hostile"))
    (row,) = [row for row in built.report.rows if row.kernel == "run"]
    assert row.status in ("pass", "wrong"), row


def test_what_code_generation_cannot_do_names_the_node(options: Options, tmp_path: Path) -> None:
    network = bring(detector(tmp_path))
    assert isinstance(network, Network)
    operators = tuple(
        msgspec.structs.replace(each, attributes={**each.attributes, "scratch": 64})
        if each.name == "take"
        else each
        for each in network.program.operators
    )
    program = msgspec.structs.replace(network.program, name="cramped", operators=operators)
    cramped = Network(program=program, constants=network.constants)
    with pytest.raises(InputError) as raised:
        build(cramped, find_target("x86_64"), options, QUIET)
    assert str(raised.value).startswith("cramped: node 'take': TVM needs ")
    assert not (options.build / "x86_64" / "cramped").exists()
    assert not list(options.out.glob("cramped*"))
