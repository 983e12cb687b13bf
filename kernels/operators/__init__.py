"""Operator families, one module each; a module here is all that an operator needs."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from kernels.errors import InputError, did_you_mean
from kernels.operators.base import ElementWise, Family


@cache
def families() -> dict[str, Family]:
    """Every family by its kind, found in the modules of this package."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Family) and "kind" in vars(value):
                found[value.kind] = value()
    return dict(sorted(found.items()))


def find_family(kind: str) -> Family:
    """The family of that kind; InputError otherwise."""
    if kind not in families():
        raise InputError(f"unknown operator '{kind}'{did_you_mean(kind, families())}")
    return families()[kind]


@cache
def fuse_words() -> dict[str, ElementWise]:
    """The words that a listing's `fuse` may hold, each with the family that it means."""
    found: dict[str, ElementWise] = {}
    for family in families().values():
        if isinstance(family, ElementWise):
            found.update(dict.fromkeys(family.words, family))
    return found
