"""References agree with definitions written as loops, and the judge sees a single wrong element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import check
from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.operators.base import UNIT_ROUNDOFF, growth
from kernels.plan import Kernel
from tests.unit.test_listing import conv, gemm, write
from toolchains.target import find_target

TARGET = find_target("x86_64")


def kernel_of(folder: Path, body: str) -> Kernel:
    """The only kernel of a listing."""
    (kernel,) = plan(read_model(write(folder, body)), TARGET).kernels
    return kernel


def test_convolution_is_the_sum_of_its_definition(tmp_path: Path) -> None:
    body = conv("filters = 2, kernel = [3, 2], stride = [2, 1], padding = [1, 0, 2, 1]", "[2, 5, 4, 3]")
    kernel = kernel_of(tmp_path, body)
    arrays = check.make_inputs(kernel, TARGET)
    x, w = arrays["x"].astype(float), arrays["w"].astype(float)
    result = check.reference(kernel, arrays).value
    assert result.shape == (2, 3, 4, 2)
    for n, i, j, o in np.ndindex(result.shape):
        total = 0.0
        for h, v, c in np.ndindex(3, 2, 3):
            row, column = 2 * i + h - 1, j + v
            if 0 <= row < 5 and 0 <= column < 4:
                total += x[n, row, column, c] * w[o, h, v, c]
        assert result[n, i, j, o] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("transpose", ["nn", "nt", "tn", "tt"])
def test_a_matrix_product_is_the_sum_of_its_definition(tmp_path: Path, transpose: str) -> None:
    kernel = kernel_of(tmp_path, gemm(transpose=f'"{transpose}"', fuse='["bias", "relu"]'))
    arrays = check.make_inputs(kernel, TARGET)
    a = arrays["a"].T if transpose[0] == "t" else arrays["a"]
    b = arrays["b"].T if transpose[1] == "t" else arrays["b"]
    for i, j in np.ndindex(2, 3):
        total = sum(float(a[i, q]) * float(b[q, j]) for q in range(4)) + float(arrays["bias"][j])
        assert check.reference(kernel, arrays).value[i, j] == pytest.approx(max(total, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("kernel", "include", "expected"),
    [
        ("average_pool", "false", (0 + 1 + 4 + 5) / 4),
        ("average_pool", "true", (0 + 1 + 4 + 5) / 9),
        ("max_pool", None, 5.0),
    ],
)
def test_pooling_at_a_corner(tmp_path: Path, kernel: str, include: str | None, expected: float) -> None:
    extra = f", count_include_pad = {include}" if include else ""
    body = (
        f'[[kernel]]\nname = "p"\nop = "{kernel}"\ninputs = {{ x = [1, 4, 4, 1] }}\n'
        f"attributes = {{ kernel = [3, 3], padding = [1, 1, 1, 1]{extra} }}\n"
    )
    arrays = {"x": np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)}
    assert check.reference(kernel_of(tmp_path, body), arrays).value[0, 0, 0, 0] == pytest.approx(expected)


def rounded(kernel: Kernel, arrays: dict[str, Any]) -> np.ndarray:
    """The reference, rounded to float32: the best that a kernel could give."""
    return check.reference(kernel, arrays).value.astype(np.float32)


def test_the_judge_accepts_the_rounded_reference_and_names_one_wrong_element(tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, conv("filters = 4, kernel = [3, 3]") + 'fuse = ["bias"]\n')
    arrays = check.make_inputs(kernel, TARGET)
    output = rounded(kernel, arrays)
    assert check.judge(kernel, arrays, output.tobytes(), TARGET).passed
    output[0, 2, 3, 1] += 1e-3
    verdict = check.judge(kernel, arrays, output.tobytes(), TARGET)
    assert not verdict.passed
    assert "y[0, 2, 3, 1]" in verdict.reason
    assert "1 of 144 elements are wrong" in verdict.reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_judge_accepts_no_nan_and_no_infinity_for_a_number(tmp_path: Path, value: float) -> None:
    kernel = kernel_of(tmp_path, gemm())
    arrays = check.make_inputs(kernel, TARGET)
    output = rounded(kernel, arrays)
    output[1, 1] = value
    assert not check.judge(kernel, arrays, output.tobytes(), TARGET).passed


def test_the_judge_accepts_no_output_of_another_size(tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, gemm())
    verdict = check.judge(kernel, check.make_inputs(kernel, TARGET), b"", TARGET)
    assert not verdict.passed
    assert "0 bytes of output instead of 24" in verdict.reason


def test_a_missing_term_of_a_long_sum_is_over_the_bound(tmp_path: Path) -> None:
    kernel = kernel_of(tmp_path, gemm(m="1", n="200", k="4608"))
    arrays = check.make_inputs(kernel, TARGET)
    output = rounded(kernel, arrays)
    estimate = check.reference(kernel, arrays)
    bound = estimate.bound(flushes_subnormals=False)
    missing = np.abs(arrays["a"][0, 17] * arrays["b"][17])
    assert np.count_nonzero(missing > bound[0]) > 100
    output[0] -= arrays["a"][0, 17] * arrays["b"][17]
    assert not check.judge(kernel, arrays, output.tobytes(), TARGET).passed


def test_growth_is_the_smaller_of_two_bounds() -> None:
    assert growth(0) == 0
    assert growth(4) == pytest.approx(4)
    assert growth(10_000) == pytest.approx(800)
    assert growth(10_000) * UNIT_ROUNDOFF < 1e-4
