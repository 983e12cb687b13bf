"""onnxruntime's products of bytes are exact where its processor's instructions saturate."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from kernels.models.exactly import FACTORS, make_exact
from kernels.models.onnx_model import read_onnx
from kernels.models.oracle import OnnxRuntime
from tests import networks
from tests.contrib import FUSED, Case, step, zero
from tests.contrib_attention import ATTENTION
from tests.contrib_integers import INTEGERS

WITHOUT_VNNI = "Haswell"
"""A processor of QEMU's, with AVX2."""
ASK = """
import sys
import numpy as np
from tests import networks
for name in sys.argv[1:]:
    made = networks.expected(f"{name}.onnx", dict(np.load(f"{name}.npz")))
    np.save(f"{name}.npy", list(made.values())[0])
"""
LARGEST = np.full((3, 64), 255, np.uint8), np.full((64, 5), 127, np.int8)
IMAGE, FILTERS = np.full((1, 8, 5, 5), 255, np.uint8), np.full((4, 8, 3, 3), -128, np.int8)
ONNX = [
    Case("MatMulInteger", *LARGEST, domain=""),
    Case("MatMulInteger", *LARGEST, zero(3), zero(-100, np.int8), domain="", word="zeros"),
    Case("ConvInteger", IMAGE, FILTERS, zero(0), zero(-3, np.int8), domain=""),
    Case(
        *("QLinearMatMul", LARGEST[0], step(0.01), zero(0), LARGEST[1], step(0.01), zero(0, np.int8)),
        *(step(1.0), zero(0)),
        domain="",
    ),
    Case(
        *("QLinearConv", IMAGE, step(0.01), zero(0), FILTERS, np.full(4, 0.01, np.float32)),
        *(np.full(4, -1, np.int8), step(1.0), zero(255)),
        domain="",
    ),
]
PRODUCTS = [case for case in (*ONNX, *FUSED, *ATTENTION, *INTEGERS) if case.op in FACTORS]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors' products do not saturate")
def test_products_are_exact_where_they_would_saturate(tmp_path: Path) -> None:
    """With VNNI nothing would be seen, so onnxruntime runs in QEMU."""
    for number, case in enumerate(PRODUCTS):
        model = case.typed_model()
        onnx.save(model, tmp_path / f"plain{number}.onnx")
        make_exact(model)
        onnx.save(model, tmp_path / f"exact{number}.onnx")
        for word in ("plain", "exact"):
            np.savez(tmp_path / f"{word}{number}.npz", **case.given())
    names = [str(tmp_path / f"{word}{n}") for word in ("plain", "exact") for n in range(len(PRODUCTS))]
    command = ["qemu-x86_64", "-cpu", WITHOUT_VNNI, sys.executable, "-c", ASK, *names]
    subprocess.run(command, check=True, capture_output=True)
    saturated = set()
    for number, case in enumerate(PRODUCTS):
        due, *_ = networks.run(read_onnx(tmp_path / f"plain{number}.onnx"), case.given()).values()
        found = {word: np.load(tmp_path / f"{word}{number}.npy") for word in ("plain", "exact")}
        bound = 1 if due.dtype.itemsize == 1 else 1e-4 * np.abs(due).max()
        assert np.abs(found["exact"].astype(float) - due).max() <= bound, case.name
        if np.abs(found["plain"].astype(float) - due).max() > bound:
            saturated.add(case.op)
    assert saturated >= {"MatMulInteger", "QLinearMatMul", "QLinearConv"}
    assert {case.op for case in PRODUCTS} == set(FACTORS)


def test_what_onnxruntime_takes_only_as_it_is_is_asked_as_it_is(tmp_path: Path) -> None:
    """It has no product of signed bytes by unsigned ones for this node."""
    signed = networks.generator("signed").integers(-128, 128, (3, 20)).astype(np.int8)
    case = Case("MatMulIntegerToFloat", signed, LARGEST[1][:20], step(0.05), step(0.01))
    model = case.typed_model()
    onnx.save(model, tmp_path / "m.onnx")
    make_exact(model)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        networks.session(model.SerializeToString())
    asked = OnnxRuntime(tmp_path / "m.onnx").ask(read_onnx(tmp_path / "m.onnx"))
    assert asked.source.startswith("onnxruntime")
