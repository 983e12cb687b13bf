"""Peers that Debian packages: the system's where installed, else unpacked into a folder of ours."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernels.errors import MissingToolError
from toolchains.bench.sysroots import sysroot, unpacked_place
from toolchains.target import Target

PACKAGES = {
    "BLIS": "libblis4-serial",
    "LIBXSMM": "libxsmm-dev",
    "XNNPACK": "libxnnpack0",
    "Eigen": "libeigen3-dev",
}
"""By library, its Debian package."""
GET = "invoke setup --peers"
DEPENDENCIES = 16
"""More than any of these libraries has."""


def provide(target: Target, say: Callable[[str], None]) -> None:
    """Unpack those that are not here yet; say what was left out. Nothing is installed."""
    for title, package in PACKAGES.items():
        try:
            say(f"{title}: in {sysroot(target, package, say)}")
        except MissingToolError as error:
            say(f"{title}: left out: {error}")


def find(target: Target, title: str, path: str) -> Path:
    """A file or folder of a library, by its place in the system; MissingToolError says how to get it."""
    for root in (Path("/"), unpacked_place(target, PACKAGES[title])):
        if (root / path).exists():
            return root / path
    raise MissingToolError(GET)


def load(target: Target, title: str, name: str) -> Any:
    """A shared object, and before it what it needs and the system lacks; MissingToolError as above."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return _load(name, unpacked_place(target, PACKAGES[title]), DEPENDENCIES)


def _load(name: str, root: Path, left: int) -> Any:
    """The loader names one library at a time that it does not find; loaded once, it is found."""
    path = next(root.rglob(name), None)
    if path is None:
        raise MissingToolError(GET)
    why = ""
    for _ in range(left):
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            why = str(error)
            needed = why.partition(":")[0]
            if Path(needed).is_absolute():
                break
            _load(needed, root, left - 1)
    raise MissingToolError(f"it does not load here: {why or path}")
