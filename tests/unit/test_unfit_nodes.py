"""Nodes that contradict their definition, unseen by ONNX's own checks: refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import networks
from tests.unit.test_bad_models import node, refused, saved


@pytest.mark.parametrize(
    ("shapes", "attributes", "message"),
    [
        ({"w": (1, 8, 3), "r": (1, 8)}, {}, "both have three dimensions"),
        ({"w": (8, 3), "r": (1, 8, 2)}, {}, "input 1 of shape (8, 3), where (1, 8, 3) belongs"),
        ({"w": (1, 8, 3), "r": (1, 4, 2)}, {}, "input 2 of shape (1, 4, 2), where (1, 8, 2) belongs"),
        ({"w": (1, 8, 3), "r": (1, 8, 2)}, {"activations": ["Tanh"]}, "1 functions for 1 directions"),
    ],
)
def test_weights_of_a_recurrent_node_must_fit(
    shapes: dict[str, tuple[int, ...]], attributes: dict[str, object], message: str, tmp_path: Path
) -> None:
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    made = node("LSTM", "x", "w", "r", hidden_size=2, **attributes)
    text = refused(saved(networks.model([made], {"x": (5, 1, 3)}, ["y"], weights), tmp_path))
    assert "node 'node1' (LSTM)" in text
    assert message in text


def test_an_equation_of_other_signs_is_refused(tmp_path: Path) -> None:
    """ONNX's inference would never come to an end."""
    model = networks.model([node("Einsum", "x", equation="i?->i")], {"x": (2, 3)}, ["y"])
    assert "no equation" in refused(saved(model, tmp_path))


def test_a_reduction_of_nothing_to_much_is_refused(tmp_path: Path) -> None:
    made = node("ReduceL2", "x", "axes", keepdims=1)
    constants = {"axes": np.array([0], np.int64)}
    model = networks.model([made], {"x": (0, 1 << 20, 1 << 20)}, ["y"], constants, opset=18)
    assert "is too large" in refused(saved(model, tmp_path))


def test_a_border_of_any_length_is_refused(tmp_path: Path) -> None:
    constants = {"pads": np.array([0, (1 << 31) - 9], np.int64)}
    model = networks.model([node("Pad", "x", "pads", mode="edge")], {"x": (3,)}, ["y"], constants)
    assert "node 'node1' (Pad)" in refused(saved(model, tmp_path))


def test_what_does_not_fit_a_definition_is_refused_with_its_node(tmp_path: Path) -> None:
    constants = {
        "starts": np.zeros(1, np.int64),
        "ends": np.ones(1, np.int64),
        "axes": np.zeros(0, np.int64),
    }
    model = networks.model([node("Slice", "x", *constants)], {"x": (3,)}, ["y"], constants)
    assert "node 'node1' (Slice)" in refused(saved(model, tmp_path))
