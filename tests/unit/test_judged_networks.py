"""Whole runs are judged by outputs that tell: what is laid out wrongly must not hide behind a softmax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kernels.whole import NORMWISE
from tests import networks
from tests.unit.test_onnx import LARGE, SMALL, read

NAMES = [*SMALL, *(pytest.param(name, marks=pytest.mark.everything) for name in LARGE)]


@pytest.mark.parametrize("name", NAMES)
def test_two_filters_in_each_others_place_are_seen(name: str, tmp_path: Path) -> None:
    path = networks.filled(name, tmp_path)
    inputs = networks.inputs_of(read(path))
    (right,) = networks.expected(path, inputs).values()
    model = onnx.load(path)
    values = {each.name: each for each in model.graph.initializer}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = numpy_helper.to_array(values[first.input[1]]).copy()
    weights[[0, 1]] = weights[[1, 0]]
    values[first.input[1]].CopyFrom(numpy_helper.from_array(weights, first.input[1]))
    onnx.save(model, path)
    (wrong,) = networks.expected(path, inputs).values()
    assert np.abs(wrong - right).max() > 3 * NORMWISE * np.abs(right).max()
