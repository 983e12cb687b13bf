"""The targets that a test runs on: all of them, or a few that differ in most ways; and their compilers."""

from __future__ import annotations

import shutil
from typing import Literal

import pytest
from _pytest.mark import ParameterSet

from toolchains.link import compiler
from toolchains.native import own_target
from toolchains.target import Target, all_targets

FEW = ("x86_64", "riscv64-rvv", "s390x")
"""Vectors of fixed and of open length, another byte order; one of them this machine may run itself."""


def at_first(*names: str) -> list[ParameterSet]:
    """Every target as a parameter: those of these names in every run, the others with --everything."""
    return [
        pytest.param(target, id=name, marks=[] if name in names else pytest.mark.everything)
        for name, target in all_targets().items()
    ]


FEW_AT_FIRST = at_first(*FEW)


def linking_compiler(target: Target, language: Literal["c", "c++"] = "c") -> list[str]:
    """What makes a static program: this machine's own compiler for its own target, where it has one.

    zig makes the language's library for each target first, which takes a minute or two.
    """
    own = shutil.which("gcc" if language == "c" else "g++") if target.name == own_target() else None
    if own:
        return [own]
    return ["c++" if word == "cc" and language == "c++" else word for word in compiler("zig", target)]
