"""Elements chosen, mixed and repeated by tables: kernels of odd sizes, and nodes that become them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from kernels import graph
from kernels.models import read_model
from kernels.models.oracle import oracle_for
from kernels.program import Network
from tests import networks
from tests.unit.test_onnx import read
from toolchains.making import Options
from toolchains.pipeline import bring, build
from toolchains.progress import Progress
from toolchains.target import find_target

QUIET = Progress(quiet=True)
KERNELS = 'name = "sampling"\nsource = "odd sizes"\n' + "".join(
    f'[[kernel]]\nname = "{op}{number}"\nop = "{op}"\ninputs = {{ x = {list(shape)} }}\n'
    f"attributes = {{ {attributes} }}\n"
    for number, (op, shape, attributes) in enumerate(
        [
            ("take", (7,), "axis = 0, extent = 9"),
            ("take", (2, 5, 33), "axis = 1, extent = 8"),
            ("take", (3, 7), "axis = 1, extent = 31"),
            ("resample", (9,), "axis = 0, extent = 17, taps = 2"),
            ("resample", (2, 5, 33), "axis = 1, extent = 11, taps = 4"),
            ("resample", (2, 8, 31), "axis = 0, extent = 3, taps = 1"),
            ("expand", (2, 1, 33), "shape = [2, 3, 33]"),
            ("expand", (3, 7, 1, 1), "shape = [3, 7, 5, 9]"),
        ]
    )
)


@pytest.mark.parametrize("name", ["x86_64", "armv7", "riscv64-rvv", "s390x"])
def test_kernels_are_right_where_tables_point_beyond_too(
    name: str, options: Options, tmp_path: Path
) -> None:
    path = tmp_path / "sampling.toml"
    path.write_text(KERNELS, encoding="utf-8")
    built = build(read_model(path), find_target(name), options, QUIET)
    assert not built.report.failed(), [row.reason for row in built.report.failed()]
    assert any(row.status == "pass" for row in built.report.rows)


def moving() -> onnx.ModelProto:
    """An image between two convolutions, made larger and smaller, bordered, turned and repeated."""
    constants = {
        "w": networks.weights("w", (8, 3, 3, 3)),
        "v": networks.weights("v", (4, 8, 1, 1)),
        "twice": [1.0, 1.0, 2.0, 2.0],
        "size": [1, 8, 7, 9],
        "pads": [0, 0, 1, 2, 0, 0, 2, 1],
        "start": [-1],
        "end": [-99],
        "axis": [3],
        "step": [-2],
        "repeats": [1, 1, 2, 1],
    }
    types = dict.fromkeys(("size", "pads", "start", "end", "axis", "step", "repeats"), "int64")
    arrays = {name: np.asarray(value, types.get(name, "float32")) for name, value in constants.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["c", "", "twice"], ["up"], mode="linear"),
        helper.make_node("Relu", ["up"], ["r"]),
        helper.make_node("Resize", ["r", "", "", "size"], ["down"], mode="cubic"),
        helper.make_node("Pad", ["down", "pads"], ["edged"], mode="reflect"),
        helper.make_node("Conv", ["edged", "v"], ["d"]),
        helper.make_node("Slice", ["d", "start", "end", "axis", "step"], ["turned"]),
        helper.make_node("Tile", ["turned", "repeats"], ["tiled"]),
        helper.make_node("DepthToSpace", ["tiled"], ["y"], blocksize=2, mode="CRD"),
    ]
    return networks.model(nodes, {"x": (1, 3, 5, 6)}, ["y"], arrays, opset=18)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(moving(), tmp_path / "moving.onnx")
    return tmp_path / "moving.onnx"


def test_nodes_become_them_where_the_image_lies(model: Path) -> None:
    network = graph.optimise(read(model))
    kinds = [operator.kind for operator in network.program.operators]
    assert kinds.count("resample") == 4
    assert kinds.count("transpose") <= 2  # the model's input, and the shuffle of pixels
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(model, inputs))


def test_a_model_of_them_runs_where_bytes_are_in_the_other_order(model: Path, options: Options) -> None:
    network = bring(model)
    assert isinstance(network, Network)
    built = build(network, find_target("s390x"), options, QUIET, oracle_for(model))
    assert [row.reason for row in built.report.failed()] == []
    assert built.report.reference.startswith("onnxruntime")
