"""Which input may lie in the output's own buffer, and that the header says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.codegen.header import header
from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.plan import Plan
from kernels.tuning import Known, Record, signature_of
from tests.unit.test_listing import conv, gemm, write
from toolchains.target import find_target

TARGET = find_target("x86_64")
WINDOW = "attributes = { kernel = [3, 3] }\n"


def planned(folder: Path, body: str, records: dict[str, Known] | None = None) -> Plan:
    """The plan of a listing."""
    return plan(read_model(write(folder, body)), TARGET, records)


def simple(op: str, inputs: str, *more: str) -> str:
    """A [[kernel]] of any operator."""
    return f'[[kernel]]\nname = "s"\nop = "{op}"\ninputs = {{ {inputs} }}\n' + "".join(more)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (gemm(), ""),
        (gemm(fuse='["bias", "relu"]'), ""),
        (gemm(fuse='["bias", "add", "relu"]'), "residual"),
        (gemm(fuse='["add"]', batch="3", weights="[]", transpose='"tt"'), "residual"),
        (gemm(fuse='["add", "gelu"]'), ""),
        (conv("filters = 5, kernel = [3, 3]") + 'fuse = ["add"]\n', "residual"),
        (conv("filters = 4, kernel = [2, 2]").replace("conv2d", "conv_transpose2d"), ""),
        (simple("depthwise_conv2d", "x = [1, 5, 5, 3]", WINDOW, 'fuse = ["add"]\n'), "residual"),
        (simple("max_pool", "x = [1, 5, 5, 3]", WINDOW, 'fuse = ["add"]\n'), "residual"),
        (simple("relu", "x = [7]"), "x"),
        (simple("gelu", "x = [3, 7]", 'fuse = ["add", "tanh"]\n'), "x"),
        (simple("mul", "a = [3, 7], b = [3, 7]"), "a"),
        (simple("mul", "a = [7], b = [3, 7]"), "b"),
        (simple("mul", "a = [1, 3, 7], b = [3, 7]"), "a"),
        (simple("mul", "a = [3, 1], b = [7]"), ""),
        (simple("mul", "a = [3, 1], b = [7]", 'fuse = ["add"]\n'), "residual"),
        (simple("softmax", "x = [3, 7]"), ""),
        (simple("transpose", "x = [3, 7]", "attributes = { permute = [1, 0] }\n"), ""),
    ],
)
def test_what_may_be_in_place(tmp_path: Path, body: str, expected: str) -> None:
    (kernel,) = planned(tmp_path, body).kernels
    assert kernel.in_place == expected


def test_sums_that_wait_in_the_result_leave_no_room_for_a_residual(tmp_path: Path) -> None:
    body = gemm(fuse='["add"]')
    (kernel,) = planned(tmp_path, body).kernels
    schedule = kernel.schedule | {"kc": 3}
    record = Record(kernel="", schedule=schedule, gain=1.0, by="time", cpu="", date="")
    known = {signature_of(kernel): Known(record=record, file="test.toml")}
    (blocked,) = planned(tmp_path, body, known).kernels
    assert (kernel.in_place, blocked.in_place) == ("residual", "")


def test_the_header_says_what_may_be_the_same(tmp_path: Path) -> None:
    with_one = header(planned(tmp_path, gemm(fuse='["add"]')), TARGET, "1")
    assert "residual may be the same buffer as c." in with_one
    without = header(planned(tmp_path, gemm()), TARGET, "1")
    assert "may be the same buffer" not in without
