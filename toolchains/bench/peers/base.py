"""What the bench asks of a peer: a library that computes some of the kernels too."""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from kernels.errors import MissingToolError
from kernels.plan import Kernel
from toolchains.bench.harness import Array, Contestant, aligned

Arrays = Mapping[str, Array]

GROUP = "uv sync --group bench"
PACKAGES = Path(sysconfig.get_path("data")) / "lib"
"""Where wheels put their shared objects."""


class Peer(Protocol):
    """A library, opened. Its name is the key in bench.json."""

    name: str
    title: str

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """The ways in which it computes the kernel on these operands; none if it cannot."""


def open_library(*places: str | Path, get: str) -> Any:
    """The first library that can be loaded; MissingToolError says how to get it."""
    for place in places:
        try:
            return ctypes.CDLL(str(place))
        except OSError:
            continue
    raise MissingToolError(get)


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A plain row-major product of float32: c[m, n] = a[m, k] b[k, n]."""

    m: int
    n: int
    k: int
    a: Array
    b: Array
    c: Array


def product(kernel: Kernel, arrays: Arrays) -> Product | None:
    """The operands of a product, aligned; None for other kernels, and for batches."""
    if kernel.kind != "gemm" or kernel.attributes["transpose"] != "nn" or kernel.epilogue:
        return None
    m, n = kernel.output.shape[-2:]
    if prod(kernel.output.shape) != m * n:
        return None
    return Product(
        m=m,
        n=n,
        k=kernel.operand("a").shape[-1],
        a=aligned(arrays["a"]),
        b=aligned(arrays["b"]),
        c=aligned(np.zeros((m, n), dtype=np.float32)),
    )


class Fused(msgspec.Struct, frozen=True, kw_only=True):
    """What follows the sum, as peers offer it: bias, residual, and a clamp from zero to `most`."""

    bias: Array | None
    residual: Array | None
    clamp: bool
    most: float


def fused(kernel: Kernel, arrays: Arrays) -> Fused | None:
    """The kernel's epilogue in a peer's terms; None if they have no word for it."""
    bias = residual = None
    clamp, most = False, float("inf")
    for step in kernel.epilogue:
        if step.kind == "add" and step.operand and arrays[step.operand].ndim == 1:
            bias = aligned(arrays[step.operand])
        elif step.kind == "add" and step.operand:
            residual = aligned(arrays[step.operand])
        elif step.kind == "relu":
            clamp = True
        elif step.kind == "clip" and step.attributes.get("minimum") == 0.0:
            clamp, most = True, float(step.attributes["maximum"])  # type: ignore[arg-type]
        else:
            return None
    return Fused(bias=bias, residual=residual, clamp=clamp, most=most)
