"""Models of older opsets mean what onnxruntime takes them for, from opset 7 on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from kernels.errors import KernfitError
from kernels.models import read_model
from kernels.program import Network
from tests import networks
from tests.conformance.older import agree, older, opsets
from tests.conformance.selection import Case, cases
from tests.conformance.test_onnx_nodes import listed

EVERY = 6
"""One of so many tests in a run that is not nightly."""
OTHERWISE = {
    "test_dropout_default_mask": "onnxruntime's mask is empty before opset 12",
    "test_dropout_default_mask_ratio": "onnxruntime's mask is empty before opset 12",
    "test_maxunpool_export_with_output_shape": "onnxruntime's indices are those of the larger output",
    "test_resize_downsample_scales_cubic_align_corners": "onnxruntime rounds the size before it aligns",
    "test_resize_downsample_scales_linear_align_corners": "onnxruntime rounds the size before it aligns",
}
"""Where onnxruntime differs from what ONNX's own tests expect."""
LEAST = 600
"""Models that are right, of each part."""


def single() -> list[Case]:
    known = {**listed(), **OTHERWISE}
    tests = [case for case in cases().values() if len(case.model.graph.node) == 1]
    return [case for case in tests if not case.model.graph.node[0].domain and case.name not in known]


def judged(case: Case, opset: int, path: Path) -> str:
    """`right`, what is wrong, or nothing where there is no such model, or onnxruntime does not take it."""
    model = older(case, opset)
    if model is None:
        return ""
    onnx.save(model, path)
    given = {each.name: case.inputs[each.name] for each in model.graph.input}
    try:
        wanted = networks.expected(path, given)
    except Exception:  # noqa: BLE001 - onnxruntime raises each of its statuses as a type of its own
        return ""
    try:
        network = read_model(path)
    except KernfitError as error:
        return str(error)
    assert isinstance(network, Network)
    with np.errstate(all="ignore"):
        found = networks.run(network, given)
    right = [agree(found[name], due) for name, due in wanted.items() if due.size]
    return "right" if all(right) else "another result"


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.everything) for part in range(1, EVERY))]
)
def test_older_opsets(part: int, tmp_path: Path) -> None:
    outcomes = {
        f"{case.name} of opset {opset}": judged(case, opset, tmp_path / "m.onnx")
        for case in single()[part::EVERY]
        for opset in opsets(case)
    }
    assert {name: said for name, said in outcomes.items() if said not in ("", "right")} == {}
    assert Counter(outcomes.values())["right"] >= LEAST
