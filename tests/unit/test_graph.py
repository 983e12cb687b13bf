"""Passes: each leaves the result as it was, and all together leave nothing needless."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kernels import graph
from kernels.models import read_model
from kernels.names import identifiers
from kernels.operators import find_family
from kernels.operators.base import ElementWise
from kernels.program import Network, Role
from tests import networks
from tests.networks import LIGHT as FOLDER
from tests.unit.test_onnx import LIGHT, read


def kinds(network: Network) -> Counter[str]:
    return Counter(operator.kind for operator in network.program.operators)


def groups(network: Network) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for operator in network.program.operators:
        found.setdefault(operator.group, []).append(operator.kind)
    return found


def assert_sound(network: Network) -> None:
    """What planning relies on."""
    program = network.program
    known = {tensor.name for tensor in program.tensors if tensor.role in (Role.INPUT, Role.CONSTANT)}
    assert set(network.constants) == {t.name for t in program.tensors if t.role is Role.CONSTANT}
    for name, value in network.constants.items():
        assert value.shape == program.tensor(name).shape
        assert value.dtype.name == program.tensor(name).dtype
        assert value.flags.c_contiguous
    last = ""
    closed: set[str] = set()
    for operator in program.operators:
        assert known.issuperset(operator.inputs)
        known.update(operator.outputs)
        assert operator.group.isidentifier()
        assert len(operator.operands) == len(operator.inputs) + 1
        if operator.group == last:
            assert isinstance(find_family(operator.kind), ElementWise)
        else:
            assert operator.group.lower() not in closed
            closed.add(operator.group.lower())
        last = operator.group
    assert len({operator.name for operator in program.operators}) == len(program.operators)


@pytest.mark.parametrize("name", LIGHT)
def test_every_pass_leaves_a_light_network_right(name: str, tmp_path: Path) -> None:
    path = networks.filled(name, tmp_path)
    network = read(path)
    inputs = networks.inputs_of(network)
    wanted = networks.expected(path, inputs)
    for number, improve in enumerate(graph.PASSES):
        network = improve(network)
        if number % 2 or improve is graph.PASSES[-1]:
            networks.assert_same(networks.run(network, inputs), wanted)
    assert_sound(network)


def test_resnet50_is_products_alone_without_a_transposition() -> None:
    begin = time.monotonic()
    network = graph.optimise(read(FOLDER / "light_resnet50.onnx"))
    assert time.monotonic() - begin < 10
    assert_sound(network)
    found = groups(network)
    assert kinds(network)["transpose"] == 0
    assert len(found) == 58  # 53 convolutions, 2 poolings, a product, softmax, and a reshaping: no kernel
    assert sum(members[:2] == ["conv2d", "add"] for members in found.values()) == 53
    assert sum(members == ["conv2d", "add", "add", "relu"] for members in found.values()) == 16
    first = network.program.operators[0]
    assert first.attributes["x_layout"] == "NCHW"


def test_a_channel_shuffle_is_one_transposition() -> None:
    network = graph.optimise(read(FOLDER / "light_shufflenet.onnx"))
    assert kinds(network)["transpose"] == 16
    assert kinds(network)["batch_norm"] == 0


@pytest.mark.parametrize("name", ["inception_v1", "densenet121"])
def test_images_become_rows_of_products_as_they_are_stored(name: str) -> None:
    assert kinds(graph.optimise(read(FOLDER / f"light_{name}.onnx")))["transpose"] == 0


def test_names_become_identifiers_and_stay_apart() -> None:
    found = identifiers(["a.b", "a/b", "A_B", "2x", "", "for", "run", "a_b_2", "é"])
    assert len({word.lower() for word in found.values()}) == len(found)
    assert all(word.isidentifier() and word.isascii() for word in found.values())
    assert found["a.b"] == "a_b"
    assert "run" not in found.values()


def test_a_residual_must_be_there_before_and_a_chain_may_be_read_by_nobody_else(tmp_path: Path) -> None:
    weights = networks.weights("w", (8, 8, 1, 1))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"], name="act"),
        helper.make_node("Conv", ["r", "w"], ["d"], name="second"),
        helper.make_node("Add", ["d", "r"], ["s"], name="sum"),
        helper.make_node("Relu", ["s"], ["y"], name="last"),
        helper.make_node("Add", ["y", "c"], ["z"], name="after"),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(networks.model(nodes, {"x": (1, 8, 5, 5)}, ["z"], {"w": weights}).SerializeToString())
    network = graph.optimise(read(path))
    assert_sound(network)
    assert list(groups(network).values()) == [
        ["conv2d"],
        ["relu"],
        ["conv2d", "add", "relu"],
        ["add"],
        ["transpose"],
    ]
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_folding_rounds_once(tmp_path: Path) -> None:
    random = networks.generator("fold")
    shape = (7, 3, 3, 3)
    constants = {
        "w": networks.weights("w", shape),
        "scale": random.uniform(0.5, 1.5, 7).astype(np.float32),
        "shift": random.uniform(-1, 1, 7).astype(np.float32),
        "mean": random.uniform(-1, 1, 7).astype(np.float32),
        "variance": random.uniform(0.5, 1.5, 7).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(networks.model(nodes, {"x": (1, 3, 9, 9)}, ["y"], constants).SerializeToString())
    network = graph.optimise(read(path))
    scale = constants["scale"].astype(np.float64) / np.sqrt(
        constants["variance"].astype(np.float64) + np.float64(np.float32(1e-5))
    )
    (conv,) = (operator for operator in network.program.operators if operator.kind == "conv2d")
    wanted = constants["w"].transpose(0, 2, 3, 1) * scale[:, None, None, None]
    np.testing.assert_array_equal(network.constants[conv.inputs[1]], wanted.astype(np.float32))
    assert kinds(network)["batch_norm"] == 0


NORMS = {
    name: np.array(value, np.float32)
    for name, value in {
        "scale": [0.7, 1.3, 1.1, 0.6],
        "shift": [0.3, -0.2, 0.1, 0.5],
        "mean": [0.2, -1, 0.4, 0],
        "variance": [0.5, 1.5, 1, 2],
    }.items()
}


@pytest.mark.parametrize(
    ("op", "x", "w", "words", "folded"),
    [
        ("Conv", (1, 4, 7, 9), (6, 4, 3, 3), {}, True),
        ("Conv", (1, 4, 7, 9), (6, 2, 3, 2), {"group": 2, "strides": [2, 1], "dilations": [1, 2]}, True),
        ("Conv", (1, 4, 7, 9), (8, 1, 3, 3), {"group": 4}, True),
        ("Conv", (1, 4, 7, 9), (4, 1, 3, 3), {"group": 4}, True),
        ("Conv", (2, 4, 9), (3, 4, 3), {}, True),
        ("Conv", (1, 4, 7, 9), (6, 4, 1, 1), {"pads": [0, 0, 0, 0]}, True),
        ("Conv", (1, 4, 7, 9), (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}, False),
        ("ConvTranspose", (1, 4, 7, 9), (4, 6, 3, 3), {}, False),
        ("MatMul", (5, 4), (4, 3), {}, True),
        ("Gemm", (5, 4), (3, 4), {"transB": 1}, True),
    ],
)
@pytest.mark.parametrize("shifted", [True, False])
def test_a_normalisation_goes_into_the_product_behind_it_but_no_shift_over_a_border(
    op: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    words: dict[str, Any],
    tmp_path: Path,
    *,
    folded: bool,
    shifted: bool,
) -> None:
    """What is behind the product goes into it too; what is said of a border is for a shift alone."""
    constants = {**NORMS, "w": networks.weights("w", w), "two": np.float32([2])}
    if not shifted:
        constants |= {"mean": np.zeros(4, np.float32), "shift": np.zeros(4, np.float32)}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *NORMS], ["n"]),
        helper.make_node(op, ["n", "w"], ["c"], **words),
        helper.make_node("Mul", ["c", "two"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    onnx.save(networks.model(nodes, {"x": x}, ["y"], constants), path)
    network = graph.optimise(read(path))
    assert (kinds(network)["batch_norm"] == 0) == (folded or (not shifted and op == "Conv"))
    assert not kinds(network)["mul"]
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_a_normalisation_stays_where_its_sum_would_cancel_or_others_read_it(tmp_path: Path) -> None:
    constants = {**NORMS, "w": networks.weights("w", (4, 3)), "v": networks.weights("v", (4, 3))}
    path = tmp_path / "m.onnx"
    far = {**constants, "mean": np.full(4, 2000, np.float32)}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *NORMS], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["y"]),
    ]
    onnx.save(networks.model(nodes, {"x": (5, 4)}, ["y"], far), path)
    assert kinds(graph.optimise(read(path)))["batch_norm"] == 1
    nodes.append(helper.make_node("MatMul", ["n", "v"], ["z"]))
    onnx.save(networks.model(nodes, {"x": (5, 4)}, ["y", "z"], constants), path)
    assert kinds(graph.optimise(read(path)))["batch_norm"] == 1


def test_one_number_alone_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(networks.model([helper.make_node("HardSigmoid", ["x"], ["y"])], {"x": ()}, ["y"]), path)
    network = graph.optimise(read(path))
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_a_listing_is_no_network() -> None:
    assert not isinstance(read_model(Path(graph.__file__).parents[1] / "models/catalog/blas.toml"), Network)
