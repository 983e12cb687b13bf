"""Operator families, one module each; a module here is all that an operator needs."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from kernels.errors import InputError, did_you_mean
from kernels.operators.base import ElementWise, Family
from kernels.operators.node import Importer


@cache
def families() -> dict[str, Family]:
    """Every family by its kind, from the `FAMILIES` of this package's modules."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for family in getattr(importlib.import_module(module.name), "FAMILIES", ()):
            found[family.kind] = family
    return dict(sorted(found.items()))


def find_family(kind: str) -> Family:
    """The family of that kind; InputError otherwise."""
    if kind not in families():
        raise InputError(f"unknown operator '{kind}'{did_you_mean(kind, families())}")
    return families()[kind]


@cache
def importers() -> dict[str, Importer]:
    """What turns a node of ONNX into our operators, by its type, from the modules' `ONNX`."""
    found: dict[str, Importer] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        found.update(getattr(importlib.import_module(module.name), "ONNX", {}))
    return dict(sorted(found.items()))


@cache
def fuse_words() -> dict[str, ElementWise]:
    """The words that a listing's `fuse` may hold, each with the family that it means."""
    found: dict[str, ElementWise] = {}
    for family in families().values():
        if isinstance(family, ElementWise):
            found.update(dict.fromkeys(family.words, family))
    return found
