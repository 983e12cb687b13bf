"""The targets that a test runs on: all of them, or a few that differ in most ways."""

from __future__ import annotations

import pytest

from toolchains.target import all_targets

FEW = ("x86_64", "riscv64-rvv", "s390x")
"""Vectors of fixed and of open length, another byte order; one of them this machine may run itself."""
FEW_AT_FIRST = [
    pytest.param(target, id=name, marks=[] if name in FEW else pytest.mark.everything)
    for name, target in all_targets().items()
]
"""Every target as a parameter: those in FEW in every run, the others with --everything."""
