"""The targets that a test runs on: all of them, or a few that differ in most ways."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet

from toolchains.target import all_targets

FEW = ("x86_64", "riscv64-rvv", "s390x")
"""Vectors of fixed and of open length, another byte order; one of them this machine may run itself."""


def at_first(*names: str) -> list[ParameterSet]:
    """Every target as a parameter: those of these names in every run, the others with --everything."""
    return [
        pytest.param(target, id=name, marks=[] if name in names else pytest.mark.everything)
        for name, target in all_targets().items()
    ]


FEW_AT_FIRST = at_first(*FEW)
