"""Whole networks beside onnxruntime: that they are measured, that wrong ones are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from rich.console import Console

from kernels.errors import CheckFailedError, InputError, UsageError
from kernels.models import runtime
from kernels.models.oracle import oracle_for
from kernels.program import Network
from tests.builders import bert, mobilenet_v2
from tests.emulation.test_bench import OWN
from tests.emulation.test_build import invoke
from tests.emulation.test_whole import QUIET, onnx_file
from tests.networks import model
from toolchains.bench import networks, results
from toolchains.bench.networks import NETWORKS, bench_models, race_model
from toolchains.bench.race import PEER
from toolchains.making import Options
from toolchains.pipeline import bring, build
from toolchains.target import find_target

DIMS = {"batch": 2}


def measured(
    path: Path, dims: dict[str, int], options: Options, show: Callable[[Any], None] = lambda _: None
) -> results.Bench:
    """What is in bench.json after a model has been measured, as quickly as it can be."""
    bench_models(
        [bring(path, dims)], [path], dims, [OWN], options, QUIET, seconds=0.01, layers=True, show=show
    )
    return results.read(options.out / "bench.json")


def test_rows_of_models_join_those_of_earlier_ones(options: Options, tmp_path: Path) -> None:
    own = msgspec.structs.replace(options, out=tmp_path / "bench")
    first = measured(onnx_file(tmp_path / "first.onnx"), DIMS, own)
    assert [row.kernel for row in first.sets[NETWORKS].rows] == ["first"]
    onnx.save(mobilenet_v2(size=32, width=0.125, classes=10), tmp_path / "second.onnx")
    measured(tmp_path / "second.onnx", {}, own)
    again = measured(tmp_path / "first.onnx", DIMS, own)
    found = again.sets[NETWORKS]
    assert [row.kernel for row in found.rows] == ["second", "first"]
    assert found == again.targets[OWN.name].sets[NETWORKS]
    for row in found.rows:
        assert row.flops > 0
        assert row.share > 0
        assert row.peers[PEER].ratio == pytest.approx(row.share / row.peers[PEER].share)
    ratios = [row.peers[PEER].ratio for row in found.rows]
    assert found.ratio[PEER] == pytest.approx(np.sqrt(np.prod(ratios)))


def test_every_call_is_timed_beside_the_peers_node(options: Options, tmp_path: Path) -> None:
    """Nodes that onnxruntime joined or laid out anew are found under what was their name."""
    own = msgspec.structs.replace(options, out=tmp_path / "bench")
    onnx.save(bert(layers=1), tmp_path / "encoder.onnx")
    dims = {"batch": 1, "sequence": 16}
    path = tmp_path / "encoder.onnx"
    row, raced = race_model(bring(path, dims), path, dims, OWN, own, QUIET, seconds=0.01, layers=True)
    assert all(layer.seconds >= 0 and layer.bytes > 0 for layer in raced.layers)
    assert sum(layer.peer is not None for layer in raced.layers) > len(raced.layers) / 2
    products = [layer for layer in raced.layers if layer.node.startswith("/MatMul")]
    assert sum(layer.peer is not None for layer in products) > 4
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(networks.layer_table(row, raced))
    text = console.export_text()
    assert all(layer.node in text for layer in raced.layers)
    assert f"{row.bytes:,}" in text


def test_a_function_may_have_any_number_of_operands(options: Options, tmp_path: Path) -> None:
    """The runner has room for 256 as a rule; a timed call has 12, and more by a function of its own."""
    path = tmp_path / "many.onnx"
    shapes = {f"x{number}": (1, 1 + number % 3) for number in range(300)}
    onnx.save(model([onnx.helper.make_node("Concat", list(shapes), ["y"], axis=1)], shapes, ["y"]), path)
    network = bring(path, {})
    built = build(network, OWN, options, QUIET, oracle_for(path))
    assert {row.status for row in built.report.rows} == {"pass"}
    assert max(len(kernel.operands) for kernel in built.manifest.kernels) == 13
    own = msgspec.structs.replace(options, out=tmp_path / "bench")
    _, raced = race_model(network, path, {}, OWN, own, QUIET, seconds=0.01, layers=True)
    assert built.manifest.network is not None
    assert len(raced.layers) == len(built.manifest.network.calls) > 25


def test_a_wrong_network_takes_no_part(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose weights are not the model's."""
    make = networks.make

    def other(plan: Any, target: Any, chosen: Any, work: Any, progress: Any, network: Network) -> Any:
        constants = {name: -array for name, array in network.constants.items()}
        changed = Network(program=network.program, constants=constants)
        return make(plan, target, chosen, work, progress, changed)

    monkeypatch.setattr(networks, "make", other)
    own = msgspec.structs.replace(options, out=tmp_path / "bench")
    with pytest.raises(CheckFailedError, match=r"scores\[.*elements are wrong"):
        measured(onnx_file(tmp_path / "wrong.onnx"), DIMS, own)
    assert not (tmp_path / "bench").exists()


def test_only_networks_are_timed_and_only_here(options: Options, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="does not run s390x itself"):
        bench_models(
            [bring(path, DIMS)],
            [path],
            DIMS,
            [find_target("s390x")],
            options,
            QUIET,
            seconds=0.01,
            layers=False,
            show=print,
        )
    (tmp_path / "small.toml").write_text(
        'name = "small"\nsource = "test"\n[[kernel]]\nname = "p"\nop = "gemm"\nm = 3\nn = 4\nk = 5\n',
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="is a listing"):
        measured(tmp_path / "small.toml", {}, options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sets", "networks"), "say which networks"),
        (("--layers",), "say which networks"),
        (("--model", "m.onnx", "--size"), "leave --sets and --size out"),
    ],
)
def test_wrong_words_are_named(words: tuple[str, ...], message: str) -> None:
    done = invoke("bench", "--engine", "local", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_sizes_that_a_model_leaves_open_are_given(tmp_path: Path) -> None:
    """The command line brings the model with them, and not the listing that goes without a model."""
    path, out = onnx_file(tmp_path / "open.onnx"), tmp_path / "bench"
    words = ("--model", str(path), "--dim", "batch=2", "--seconds", "0.01", "--out", str(out))
    done = invoke("bench", "--engine", "local", *words)
    assert done.returncode == 0, done.stderr
    assert [row.kernel for row in results.read(out / "bench.json").sets[NETWORKS].rows] == ["open"]


def test_the_peer_may_fold_what_older_exporters_leave_open(tmp_path: Path) -> None:
    model = onnx.load(onnx_file(tmp_path / "old.onnx"))
    for each in model.graph.initializer:
        value = onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        model.graph.input.append(value)
    model.ir_version = 3
    onnx.save(model, tmp_path / "old.onnx")
    session = runtime.open_session(tmp_path / "old.onnx", DIMS)
    assert [each.name for each in session.get_inputs()] == ["image"]
    assert session.get_inputs()[0].shape == [2, 3, 8, 8]
    (tmp_path / "none.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match=r"none\.onnx"):
        runtime.open_session(tmp_path / "none.onnx")
