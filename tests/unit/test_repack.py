"""New weights for a library that stays: the bytes that a build of the new model would give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from kernels.codegen.driver import run_symbol
from kernels.errors import InputError
from kernels.graph import optimise
from kernels.graph.network import plan_network
from kernels.graph.weights import LAYOUT_BYTES, packed_weights
from kernels.manifest import Manifest, Measured, manifest_of
from kernels.models import read_model
from kernels.pack import read_manifest
from kernels.plan import Plan, WeightsMode
from kernels.program import Network
from kernels.repack import pack_network
from tests import networks
from toolchains.target import find_target

TARGETS = ("x86_64", "s390x", "armv7")


def model(folder: Path, seed: str, *, slope: float = 0.125, filters: int = 16, spare: bool = False) -> Path:
    """A network whose constants are folded, transformed, packed, rounded and moved; one input is fixed."""
    random = networks.generator(seed)

    def draw(*shape: int) -> Any:
        return random.uniform(-1, 1, shape).astype(np.float32)

    constants = {
        "w": draw(filters, 4, 3, 3),
        "gamma": draw(filters),
        "beta": draw(filters),
        "mean": draw(filters),
        "var": np.abs(draw(filters)) + np.float32(0.25),
        "w2": draw(filters, filters, 3, 3),
        "b2": draw(filters),
        "half": draw(filters * 64, 6).astype(np.float16),
        "scale": draw(6),
        "table": draw(5, 6),
        "index": np.array([2, 1], np.int64),
    }
    statistics = ["gamma", "beta", "mean", "var"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", *statistics], ["n"], name="norm"),
        helper.make_node("LeakyRelu", ["n"], ["r"], name="leaky", alpha=slope),
        helper.make_node("Conv", ["r", "w2", "b2"], ["d"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["d"], ["f"], name="flat"),
        helper.make_node("Cast", ["half"], ["dense"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "dense"], ["m"], name="dense"),
        helper.make_node("Mul", ["m", "scale"], ["s"], name="scaled"),
        helper.make_node("Add", ["index", "turn"], ["place"], name="place"),
        helper.make_node("Gather", ["table", "place"], ["rows"], name="rows"),
        helper.make_node("Add", ["s", "rows"], ["y"], name="out"),
        *([helper.make_node("Exp", ["y"], ["z"], name="spare")] if spare else []),
    ]
    inputs: dict[str, tuple[int | str, ...]] = {"x": ("batch", 4, 8, 8), "turn": ()}
    kinds = {"turn": TensorProto.INT64}
    made = networks.model(nodes, inputs, ["z" if spare else "y"], constants, types=kinds)
    path = folder / f"{seed}.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def network_of(path: Path) -> Network:
    network = read_model(path, {"batch": 2, "turn": 1})
    assert isinstance(network, Network)
    return optimise(network)


def planned(path: Path, target: str, mode: WeightsMode = "file") -> tuple[Plan, Network]:
    network = network_of(path)
    return plan_network(network, find_target(target), weights_mode=mode, winograd=True), network


def manifest(plan: Plan) -> Manifest:
    """The manifest of a library, as if its objects had been measured."""
    symbols = [kernel.symbol for kernel in plan.kernels] + [run_symbol(plan.library)]
    measured = dict.fromkeys(symbols, Measured(code_bytes=1, constant_bytes=0, stack_bytes=0))
    return manifest_of(plan, find_target(plan.target), measured, {"kernfit": "0"}, "0" * 64)


def written(folder: Path, described: Manifest) -> Path:
    path = folder / "manifest.json"
    path.write_bytes(msgspec.json.encode(described))
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_new_weights_are_those_of_a_build_of_the_new_model(target: str, tmp_path: Path) -> None:
    first, _ = planned(model(tmp_path, "first"), target)
    second, network = planned(model(tmp_path, "second"), target)
    assert any(kernel.winograd for kernel in first.kernels)
    assert not any(kernel.kind == "batch_normalization" for kernel in first.kernels)
    out = tmp_path / "out.weights"
    command = [sys.executable, "-m", "kernels.pack", str(written(tmp_path, manifest(first)))]
    done = subprocess.run(
        [*command, str(tmp_path / "second.onnx"), str(out)], capture_output=True, text=True, check=True
    )
    expected = b"".join(packed_weights(second, network, find_target(target).byte_order))
    assert out.read_bytes() == expected
    assert f"{len(expected)} bytes, SHA-256 " in done.stdout
    assert first.network is not None
    assert second.network is not None
    assert expected[-LAYOUT_BYTES:].hex() == first.network.weights_layout == second.network.weights_layout
    sums = [{each.sha256 for each in plan.network.weights} for plan in (first, second) if plan.network]
    assert not sums[0] & sums[1]


def test_constants_that_happen_to_be_equal_may_part(tmp_path: Path) -> None:
    """They are stored once in a library, and twice where they can be exchanged."""

    def saved(name: str, *values: float) -> Path:
        constants = {f"w{n}": np.full((6, 6), value, np.float32) for n, value in enumerate(values)}
        nodes = [
            helper.make_node("MatMul", ["x", "w0"], ["m"]),
            helper.make_node("MatMul", ["m", "w1"], ["y"]),
        ]
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(networks.model(nodes, {"x": (2, 6)}, ["y"], constants).SerializeToString())
        return path

    equal, different = saved("equal", 1, 1), saved("different", 2, 3)
    target = find_target("x86_64")
    network = optimise(read_model(equal))
    embedded, beside = (
        plan_network(network, target, weights_mode=mode).network for mode in ("embed", "file")
    )
    assert embedded is not None
    assert beside is not None
    assert (len(embedded.weights), len(beside.weights)) == (1, 2)
    assert (embedded.weights_layout, embedded.weights_bytes) == ("", 144)
    assert beside.weights_bytes == 192 + 192 + LAYOUT_BYTES
    plan = plan_network(network, target, weights_mode="file")
    out = tmp_path / "out.weights"
    pack_network(manifest(plan), different, out)
    assert (
        np.frombuffer(out.read_bytes()[:384], "<f4").tolist()
        == [2.0] * 36 + [0.0] * 12 + [3.0] * 36 + [0.0] * 12
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"slope": 0.5},
            "alpha = 0.5 (there 0.125) of what is fused (leaky_relu) into the kernel of node 'conv.1'",
        ),
        ({"filters": 24}, "filters = 24 (there 16) of node 'conv.1' (conv2d)"),
        ({"spare": True}, "node 'spare' (exp), which the library has not,"),
    ],
)
def test_a_model_that_would_be_another_library_is_refused(
    other: dict[str, Any], message: str, tmp_path: Path
) -> None:
    plan, _ = planned(model(tmp_path, "first"), "riscv64")
    path = written(tmp_path, manifest(plan))
    out = tmp_path / "out.weights"
    command = [sys.executable, "-m", "kernels.pack", str(path), str(model(tmp_path, "other", **other))]
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["first.onnx", "manifest.json", "other.onnx"]


def test_a_library_that_holds_its_weights_says_so(tmp_path: Path) -> None:
    plan, _ = planned(model(tmp_path, "first"), "riscv64", "embed")
    with pytest.raises(InputError, match="build it with --weights file or symbol"):
        pack_network(manifest(plan), tmp_path / "first.onnx", tmp_path / "out")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("weights_bytes",), 1 << 60),
        (("weights_layout",), "../../x"),
        (("weights", 1, "offset"), 1 << 60),
        (("weights", 0, "bytes"), -4),
        (("weights", 0, "kernel"), "none"),
        (("calls", 0, "kernel"), "none"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    place: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    plan, _ = planned(model(tmp_path, "first"), "riscv64")
    raw = json.loads(msgspec.json.encode(manifest(plan)))
    part = raw["network"]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(InputError, match="contradicts itself"):
        pack_network(read_manifest(tmp_path / "manifest.json"), tmp_path / "first.onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
