"""How long things that can hang may take: one table, of which KERNFIT_LIMITS overrides rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from kernels.errors import UsageError, did_you_mean

VARIABLE = "KERNFIT_LIMITS"
DEFAULTS: Mapping[str, tuple[float, str]] = MappingProxyType(
    {
        "step": (3600.0, "a step of a build: code generation, linking, or all checks on one processor"),
        "check": (60.0, "a check, and a second more for every two million of its operations"),
        "tool": (600.0, "a compiler, a linker, or another program that a step starts"),
        "probe": (30.0, "a program that is asked for its version, or for what it can do"),
        "docker": (30.0, "an answer of the Docker engine"),
        "image": (3600.0, "the building of an image"),
        "pull": (180.0, "a registry, before the base image is made here instead"),
        "bootstrap": (900.0, "the making of that base image"),
        "install": (1200.0, "a package manager"),
        "daemon": (60.0, "the start of a Docker engine"),
        "bundle": (1800.0, "one command of `invoke images --export` or `invoke setup --offline`"),
        "export": (1800.0, "the export of a torch program"),
        "measure": (7200.0, "a round of `invoke bench` or `invoke tune`"),
        "copy": (600.0, "a copy to or from a board"),
        "rebuild": (4 * 3600.0, "what `invoke verify` runs to make an archive again"),
        "lock": (7200.0, "the same build in another process"),
    }
)
"""Seconds, and of what, by name."""


@cache
def _limits(words: str) -> dict[str, float]:
    found = {name: seconds for name, (seconds, _) in DEFAULTS.items()}
    for word in filter(None, words.split(",")):
        name, _, seconds = word.strip().partition("=")
        if name not in found:
            raise UsageError(f"{VARIABLE}: unknown limit '{name}'{did_you_mean(name, found)}")
        try:
            found[name] = float(seconds)
        except ValueError:
            found[name] = 0.0
        if not 0.0 < found[name] < float("inf"):
            raise UsageError(f"{VARIABLE}: {word}: give seconds, such as {name}=600")
    return found


def limit(name: str) -> float:
    """Seconds that something of this name may take; UsageError if KERNFIT_LIMITS is not understood."""
    return _limits(os.environ.get(VARIABLE, ""))[name]


def passed_on() -> dict[str, str]:
    """The variable, where it is set, for the environment of a step."""
    return {VARIABLE: os.environ[VARIABLE]} if os.environ.get(VARIABLE) else {}
