"""Transforms and recurrent cells, as they are read, against NumPy's and onnxruntime's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from kernels import graph
from kernels.errors import InputError
from kernels.models.onnx_model import read_onnx
from kernels.operators.fourier import backward, cosines, forward
from tests import networks


@pytest.mark.parametrize("count", [1, 2, 3, 8, 10, 97, 360])
def test_cosines_are_those_of_exact_angles(count: int) -> None:
    found = cosines(count)
    np.testing.assert_allclose(found, np.cos(2 * np.pi * np.arange(count) / count), rtol=0, atol=1e-15)
    assert all(found[k] == found[count - k] for k in range(1, count))
    if count % 4 == 0:
        assert [found[0], found[count // 4], found[count // 2]] == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_matrices_transform_forth_and_back(length: int) -> None:
    random = networks.generator("dft")
    x = random.uniform(-1, 1, length) + 1j * random.uniform(-1, 1, length)
    flat = np.stack([x.real, x.imag], axis=-1).ravel()
    for inverse, expected in ((False, np.fft.fft(x)), (True, np.fft.ifft(x))):
        made = (flat @ forward(length, length, length, complex_too=True, inverse=inverse)).reshape(-1, 2)
        np.testing.assert_allclose(made @ [1, 1j], expected, atol=1e-13)
    half = np.fft.rfft(x.real)
    flat = np.stack([half.real, half.imag], axis=-1).ravel()
    np.testing.assert_allclose(flat @ backward(half.size, length), x.real, atol=1e-13)


CELLS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"direction": "bidirectional", "activations": ["Relu", "Tanh"]}),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"linear_before_reset": 0, "clip": 0.25}),
    ("LSTM", {"direction": "reverse"}),
    ("LSTM", {"direction": "bidirectional"}),
]


@pytest.mark.parametrize(("op", "attributes"), CELLS)
def test_cells_are_onnxruntimes(tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
    """With biases and states, over five steps of three sequences."""
    gates, hidden = {"RNN": 1, "GRU": 3, "LSTM": 4}[op], 4
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    constants = {
        "w": networks.weights("w", (directions, gates * hidden, 6)),
        "r": networks.weights("r", (directions, gates * hidden, hidden)),
        "b": networks.weights("b", (directions, 2 * gates * hidden)),
    }
    states = ["h", "c"] if op == "LSTM" else ["h"]
    inputs = {"x": (5, 3, 6), **dict.fromkeys(states, (directions, 3, hidden))}
    outputs = ["y", "y_h", "y_c"][: 1 + len(states)]
    node = helper.make_node(
        op, ["x", "w", "r", "b", "", *states], outputs, hidden_size=hidden, **attributes
    )
    judge(tmp_path, networks.model([node], inputs, outputs, constants))


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_sequences_end_where_they_end(op: str, direction: str, tmp_path: Path) -> None:
    """Backwards too, where each begins at its own end."""
    directions, gates = 1 + (direction == "bidirectional"), {"LSTM": 4, "GRU": 3}[op]
    constants = {
        "w": networks.weights("w", (directions, gates * 4, 6)),
        "r": networks.weights("r", (directions, gates * 4, 4)),
        "lengths": np.array([5, 2, 1], np.int32),
    }
    outputs = ["y", "y_h", "y_c"][: 2 + (op == "LSTM")]
    words = {"hidden_size": 4, "direction": direction}
    node = helper.make_node(op, ["x", "w", "r", "", "lengths"], outputs, **words)
    judge(tmp_path, networks.model([node], {"x": (5, 3, 6)}, outputs, constants))


def judge(folder: Path, model: Any) -> None:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    network = graph.optimise(read_onnx(path))
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_what_is_not_supported_is_said(tmp_path: Path) -> None:
    node = helper.make_node("DFT", ["x"], ["y"], axis=1, name="wave")
    path = tmp_path / "m.onnx"
    path.write_bytes(networks.model([node], {"x": (1, 5000, 1)}, ["y"]).SerializeToString())
    with pytest.raises(InputError, match=r"node 'wave' \(DFT\): a transform of length 5000; at most 4096"):
        read_onnx(path)


@pytest.mark.parametrize(
    "equation",
    [
        "ij,jk->ik",
        "bij,bkj->kbi",
        "i,j->ij",
        "ij,ij->j",
        "bhqd,bhkd->bhqk",
        "ij,jk,kl->li",
        "ijk->j",
        "ij,ji",
        "ij->",
    ],
)
def test_sums_of_products_are_onnxruntimes(tmp_path: Path, equation: str) -> None:
    extents = dict(zip("bhijkqdl", (2, 3, 4, 5, 6, 3, 7, 2), strict=True))
    terms = equation.partition("->")[0].split(",")
    inputs = {f"x{n}": tuple(extents[label] for label in term) for n, term in enumerate(terms)}
    judge(
        tmp_path,
        networks.model([helper.make_node("Einsum", list(inputs), ["y"], equation=equation)], inputs, ["y"]),
    )
