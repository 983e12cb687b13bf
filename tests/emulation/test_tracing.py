"""The trace of a network: it says where a result first differs, and is silent where none does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from kernels.errors import CheckFailedError, InputError
from kernels.program import Network
from tests.builders import bert, mobilenet_v2
from tests.emulation.test_whole import QUIET, onnx_file
from toolchains import tracing
from toolchains.making import Options
from toolchains.pipeline import bring, build
from toolchains.target import find_target

S390X = find_target("s390x")


def built(path: Path, options: Options, dims: dict[str, int], change: Any = None) -> Network:
    """The model's network after a build of it, or of what `change` makes of its constants."""
    network = bring(path, dims)
    assert isinstance(network, Network)
    constants = {name: change(array) for name, array in network.constants.items()} if change else {}
    changed = Network(program=network.program, constants={**network.constants, **constants})
    build(changed, S390X, options, QUIET)
    return changed


@pytest.mark.parametrize("name", ["bert", "mobilenet"])
def test_names_of_the_model_are_names_of_its_tensors(name: str, options: Options, tmp_path: Path) -> None:
    """Whatever was folded, fused and laid out anew: a name that is kept means what it meant."""
    made = bert(layers=1) if name == "bert" else mobilenet_v2(size=32, width=0.125, classes=10)
    path = tmp_path / f"traced_{name}.onnx"
    onnx.save(made, path)
    dims = {"batch": 2, "sequence": 8} if name == "bert" else {}
    network = built(path, options, dims)
    found = tracing.trace(network, path, dims, S390X, options, QUIET)
    assert found.difference is None
    assert found.compared > found.calls / 2
    assert "none" in {cell for column in tracing.table_of([found]).columns for cell in column.cells}
    tracing.require([found])


def test_the_first_difference_is_named(options: Options, tmp_path: Path) -> None:
    """Weights that are not the model's, as if a pass had changed them: the kernel is right."""
    path, dims = onnx_file(tmp_path / "astray.onnx"), {"batch": 1}

    def bent(array: Any) -> Any:
        return array + np.float32(0.5) if array.shape == (6,) else array

    network = built(path, options, dims, bent)
    found = tracing.trace(network, path, dims, S390X, options, QUIET)
    assert found.difference is not None
    assert (found.difference.tensor, found.compared) == ("r", 1)
    assert found.difference.error == pytest.approx(0.5, rel=0.01)
    assert found.difference.kernel_wrong == ""
    with pytest.raises(CheckFailedError, match=r"'r' of node 'c.*misread or changed"):
        tracing.require([found])


def test_a_wrong_kernel_is_told_from_a_misread_node(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, dims = onnx_file(tmp_path / "broken.onnx"), {"batch": 1}
    network = built(path, options, dims)
    run = tracing._Tracer.run

    def flipped(self: Any, *given: Any) -> bytes:
        return (-np.frombuffer(run(self, *given), ">f4")).astype(">f4").tobytes()

    monkeypatch.setattr(tracing._Tracer, "run", flipped)
    found = tracing.trace(network, path, dims, S390X, options, QUIET)
    assert found.difference is not None
    assert "elements are wrong" in found.difference.kernel_wrong
    assert "its kernel is wrong" in found.difference.blame


def test_what_was_not_built_is_not_traced(options: Options, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "unbuilt.onnx")
    network = bring(path, {"batch": 1})
    assert isinstance(network, Network)
    with pytest.raises(InputError, match="run `invoke build`"):
        tracing.trace(network, path, {"batch": 1}, S390X, options, QUIET)


def test_errors_are_found_in_any_order_of_axes() -> None:
    expected = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    for found in (expected, expected.transpose(0, 2, 3, 1), expected.reshape(6, 4)):
        assert tracing.difference(found, expected)[0] == 0
    wrong = expected.transpose(0, 2, 3, 1).copy()
    wrong[0, 1, 2, 1] += 1
    error, bound = tracing.difference(wrong, expected)
    assert (error, bound) == (1.0, pytest.approx(23e-4))
    assert tracing.difference(np.array([np.nan, 1.0]), np.array([np.nan, 1.0]))[0] == 0
    assert tracing.difference(np.array([np.nan, 1.0]), np.array([2.0, 1.0]))[0] == np.inf
    assert tracing.difference(np.array([1, 2]), np.array([1, 3]))[1] == 0
