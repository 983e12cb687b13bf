"""LIBXSMM: small products generated for their shape, put together over packed panels."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

from kernels.errors import EngineError
from kernels.plan import Kernel
from toolchains.bench.harness import Call, Contestant, aligned
from toolchains.bench.peers import debian
from toolchains.bench.peers.base import Arrays, Product, product
from toolchains.limits import limit
from toolchains.link import zig_environment
from toolchains.process import run
from toolchains.target import Target

PANELS = (32, 64)
ROWS = (16, 32, 64, 128)
DEPTHS = (128, 0)
"""Sizes of blocks that are tried; depth 0 is the whole depth in one."""
BETA_ZERO = 4
"""LIBXSMM_GEMM_FLAG_BETA_0 (libxsmm_typedefs.h)."""


class Libxsmm:
    """Batch-reduce products over blocks of the depth, on panels packed beforehand."""

    name, title = "libxsmm-packed", "LIBXSMM, packed"

    def __init__(self, target: Target, folder: Path) -> None:
        """Make a shared object of Debian's archive in `folder`; MissingToolError without it."""
        archive = debian.find(target, "LIBXSMM", "usr/lib/libxsmm.a")
        library = folder / "libxsmm.so"
        linked = run(
            [
                sys.executable,
                "-m",
                "ziglang",
                "cc",
                "-O2",  # or zig makes the runtime of its sanitizers, which takes half a minute
                "-shared",
                "-o",
                str(library),
                "-Wl,--whole-archive",
                str(archive),
                "-Wl,--no-whole-archive",
                str(archive.with_name("libxsmmnoblas.a")),
            ],
            timeout=limit("tool"),
            env=zig_environment(),
        )
        if linked.status != 0:
            raise EngineError(f"{archive} does not link: {linked.output}")
        self._library = ctypes.CDLL(str(library))
        self._library.libxsmm_init()
        for dispatch in (
            self._library.libxsmm_smmdispatch,
            self._library.libxsmm_smmdispatch_reducebatch_strd,
        ):
            dispatch.restype = ctypes.c_void_p

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """One for each blocking that divides the depth; the bench keeps the fastest."""
        p = product(kernel, arrays)
        if p is None:
            return []
        found = []
        for panel in PANELS:
            packed = [np.ascontiguousarray(p.b[:, at : at + panel]) for at in range(0, p.n, panel)]
            store = aligned(np.concatenate([part.ravel() for part in packed]))
            for rows in ROWS:
                if rows > max(ROWS[0], p.m):
                    continue
                for depth in DEPTHS:
                    if depth and (p.k % depth or p.k == depth):
                        continue
                    for panels_outside in (True, False):
                        calls = self._calls(
                            p, store.ctypes.data, (panel, rows, depth or p.k), panels_outside
                        )
                        found.append(Contestant(name=self.name, calls=calls, output=p.c, alive=(p, store)))
        return found

    def _calls(
        self, p: Product, store: int, blocks: tuple[int, int, int], panels_outside: bool
    ) -> list[Call]:
        panel, rows, depth = blocks
        count = ctypes.c_ulonglong(p.k // depth)
        self._counts = [*getattr(self, "_counts", []), count]
        lines = range(0, p.m, rows)
        columns = range(0, p.n, panel)
        places = (
            [(i, j) for j in columns for i in lines]
            if panels_outside
            else [(i, j) for i in lines for j in columns]
        )
        return [
            Call(
                function=self._kernel(min(panel, p.n - j), min(rows, p.m - i), depth, (p.k, p.n)),
                integers=(
                    store + 4 * j * p.k,
                    p.a.ctypes.data + 4 * i * p.k,
                    p.c.ctypes.data + 4 * (i * p.n + j),
                    ctypes.addressof(count),
                ),
            )
            for i, j in places
        ]

    def _kernel(self, width: int, rows: int, depth: int, leading: tuple[int, int]) -> int:
        """Column-major terms: its first operand is our panel, its second our rows."""
        k, n = leading
        sizes = [ctypes.byref(ctypes.c_int(size)) for size in (width, k, n)]
        scalars = [ctypes.byref(ctypes.c_float(value)) for value in (1.0, 0.0)]
        flags = ctypes.byref(ctypes.c_int(BETA_ZERO))
        found = self._library.libxsmm_smmdispatch_reducebatch_strd(
            width, rows, depth, 4 * depth * width, 4 * depth, *sizes, *scalars, flags, None
        )
        if not found:
            raise EngineError(f"LIBXSMM makes no product of {width} x {rows} x {depth} on this processor")
        return int(found)
