"""Nodes that TVM's importer takes: in a network, on several targets, against ONNX's reference evaluator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulation.test_whole import QUIET, runs, symbols
from tests.tail_networks import Evaluator, sampled
from toolchains.making import Options
from toolchains.pipeline import bring, build
from toolchains.target import find_target


@pytest.mark.parametrize("name", ["armv7", "i686", "riscv64", "s390x", "x86_64"])
def test_a_network_with_nodes_of_the_tail_is_right(name: str, options: Options, tmp_path: Path) -> None:
    path = sampled(tmp_path)
    built = build(bring(path), find_target(name), options, QUIET, Evaluator(path))
    assert not built.report.failed()
    assert not built.report.broken()
    assert built.report.reference == Evaluator.identity
    assert [row.status for row in runs(built)] == ["pass"] * len(runs(built))
    kinds = {kernel.name: kernel.operator for kernel in built.manifest.kernels}
    assert list(kinds.values()).count("onnx") == 3
    _, undefined = symbols(options.build / name / "sampled" / "libsampled.so")
    assert undefined <= {"memcpy", "memset", "memmove"}
    again = build(bring(path), find_target(name), options, QUIET, Evaluator(path))
    assert again.cached
    assert again.sha256 == built.sha256
