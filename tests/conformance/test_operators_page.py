"""The page that lists ONNX's operators is what the code and its list of failures say."""

from __future__ import annotations

import pytest

from tests.conformance.operators_page import page
from tests.conformance.test_onnx_nodes import listed
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "operators.md"


def test_the_page_is_what_the_code_says(request: pytest.FixtureRequest) -> None:
    text = page(listed())
    if request.config.getoption("--update-golden"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "pytest --update-golden"
