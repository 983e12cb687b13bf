"""That TVM's importer is trusted with a node rests on ONNX's tests of its type."""

from __future__ import annotations

import pytest

from kernels.models.onnx_tail import TAIL
from tests.conformance.selection import cases
from tests.conformance.test_onnx_nodes import listed


@pytest.mark.parametrize("op", TAIL)
def test_all_tests_of_a_row_pass_but_those_that_are_refused(op: str) -> None:
    row, known = TAIL[op], listed()
    tests = [
        name for name, case in cases().items() if name.startswith(row.tests) and "_expanded" not in name
    ]
    assert tests
    assert {cases()[name].op for name in tests} == {op}
    assert set(tests) - known.keys()
    for name in tests:
        reason = known.get(name, "")
        assert not reason.startswith(("another result", "a bug", "no result", "status", "TVM")), name
