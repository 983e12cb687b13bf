"""Networks that packages ship mean what onnxruntime takes them for, as read and after all passes."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.graph import optimise
from kernels.models.onnx_model import read_onnx
from kernels.models.oracle import OnnxRuntime
from tests import networks, shipped


@pytest.mark.parametrize(
    "name",
    [
        name if name in shipped.SMALL else pytest.param(name, marks=pytest.mark.everything)
        for name in shipped.MODELS
    ],
)
def test_a_shipped_network_means_what_onnxruntime_takes_it_for(name: str) -> None:
    path, dims = shipped.need(name)
    network = read_onnx(path, dims)
    reference = OnnxRuntime(path, dims).ask(network)
    assert "did not take" not in reference.source
    with np.errstate(all="ignore"):
        found = networks.run(optimise(network), reference.inputs)
    for output, wanted in reference.outputs.items():
        due = wanted.astype(np.float64)
        error = np.abs(found[output].reshape(due.shape) - due).max()
        normwise = reference.looser.get(output, reference.normwise)
        assert error <= normwise * np.abs(due).max(), f"{output}: {error}"
