"""The table of limits of time: what the documentation says of it, and how it is overridden."""

from __future__ import annotations

import pytest

from kernels.errors import UsageError
from tests.conftest import ROOT
from toolchains.limits import DEFAULTS, limit


def test_the_documentation_has_every_limit() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [f"| `{name}` | {seconds:,.0f} | {what} |" for name, (seconds, what) in DEFAULTS.items()]
    assert "\n".join(rows) in text


def test_limits_are_overridden_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit("step") == DEFAULTS["step"][0]
    monkeypatch.setenv("KERNFIT_LIMITS", "step=7.5, check=2")
    assert (limit("step"), limit("check"), limit("tool")) == (7.5, 2.0, DEFAULTS["tool"][0])
    for words, message in (
        ("stp=3", "did you mean 'step'"),
        ("step", "give seconds"),
        ("step=-3", "give seconds"),
        ("step=inf", "give seconds"),
        ("step=nan", "give seconds"),
    ):
        monkeypatch.setenv("KERNFIT_LIMITS", words)
        with pytest.raises(UsageError, match=message):
            limit("step")
