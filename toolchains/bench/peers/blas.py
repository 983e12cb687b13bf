"""BLAS libraries through CBLAS: OpenBLAS, BLIS and MKL, and MKL's products of packed matrices."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from kernels.errors import EngineError
from kernels.plan import Kernel
from toolchains.bench.harness import Call, Contestant, address, aligned
from toolchains.bench.peers import debian
from toolchains.bench.peers.base import GROUP, PACKAGES, Arrays, Product, open_library, product
from toolchains.target import Target

ROW_MAJOR, NO_TRANSPOSE, B_MATRIX, PACKED = 101, 111, 162, 151
"""CBLAS's and MKL's enumerations (mkl_cblas.h)."""


class Blas:
    """A library with CBLAS's sgemm, and sgemv for products of one row."""

    def __init__(self, name: str, title: str, library: Any, prefix: str = "") -> None:
        """`prefix` stands before its names."""
        self.name, self.title = name, title
        self._sgemm = address(getattr(library, f"{prefix}cblas_sgemm"))
        self._sgemv = address(getattr(library, f"{prefix}cblas_sgemv"))

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """Sgemm on row-major operands; for one row the faster of sgemm and sgemv."""
        found = product(kernel, arrays)
        if found is None:
            return []
        ways = [self._general(found)]
        if found.m == 1:
            ways.append(self._vector(found))
        return [Contestant(name=self.name, calls=[way], output=found.c, alive=found) for way in ways]

    def _general(self, p: Product) -> Call:
        return Call(
            function=self._sgemm,
            integers=(
                ROW_MAJOR,
                NO_TRANSPOSE,
                NO_TRANSPOSE,
                p.m,
                p.n,
                p.k,
                p.a.ctypes.data,
                p.k,
                p.b.ctypes.data,
                p.n,
                p.c.ctypes.data,
                p.n,
            ),
            floats=(1.0, 0.0),
        )

    def _vector(self, p: Product) -> Call:
        transpose = NO_TRANSPOSE + 1
        return Call(
            function=self._sgemv,
            integers=(
                ROW_MAJOR,
                transpose,
                p.k,
                p.n,
                p.b.ctypes.data,
                p.n,
                p.a.ctypes.data,
                1,
                p.c.ctypes.data,
                1,
            ),
            floats=(1.0, 0.0),
        )


class PackedMkl:
    """MKL's cblas_sgemm_compute, the second matrix packed beforehand."""

    name, title = "mkl-packed", "MKL, packed"

    def __init__(self, library: Any) -> None:
        """`library` is MKL."""
        self._library = library

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """Pack once, and compute."""
        p = product(kernel, arrays)
        if p is None:
            return []
        size = self._library.cblas_sgemm_pack_get_size
        size.restype = ctypes.c_size_t
        store = aligned(np.zeros(int(size(B_MATRIX, p.m, p.n, p.k)) // 4 + 16, dtype=np.float32))
        self._library.cblas_sgemm_pack(
            ROW_MAJOR,
            B_MATRIX,
            NO_TRANSPOSE,
            p.m,
            p.n,
            p.k,
            ctypes.c_float(1.0),
            ctypes.c_void_p(p.b.ctypes.data),
            p.n,
            ctypes.c_void_p(store.ctypes.data),
        )
        call = Call(
            function=address(self._library.cblas_sgemm_compute),
            integers=(
                ROW_MAJOR,
                NO_TRANSPOSE,
                PACKED,
                p.m,
                p.n,
                p.k,
                p.a.ctypes.data,
                p.k,
                store.ctypes.data,
                p.n,
                p.c.ctypes.data,
                p.n,
            ),
            floats=(0.0,),
        )
        return [Contestant(name=self.name, calls=[call], output=p.c, alive=(p, store))]


def openblas() -> Blas:
    """OpenBLAS of the wheel that SciPy is built with."""
    found = importlib.util.find_spec("scipy_openblas32")
    places = [Path(found.origin).parent / "lib" / "libscipy_openblas.so"] if found and found.origin else []
    return Blas("openblas", "OpenBLAS", open_library(*places, get=GROUP), prefix="scipy_")


def blis(target: Target) -> Blas:
    """BLIS of Debian, held to the kernels that BLIS_ARCH_TYPE names; EngineError if it is not.

    Before its version 1.0 it read the variable as a number, whose meaning changes with the
    version, and took every name for the number 0.
    """
    library = debian.load(target, "BLIS", "libblis.so.4")
    wanted = os.environ.get("BLIS_ARCH_TYPE", "")
    library.bli_arch_string.restype = ctypes.c_char_p
    names: list[str] = []
    while "generic" not in names:  # the last
        names.append(library.bli_arch_string(len(names)).decode())
    if wanted in names:
        os.environ["BLIS_ARCH_TYPE"] = str(names.index(wanted))
        library.bli_init()
        held = library.bli_arch_string(library.bli_arch_query_id()).decode()
        if held != wanted:
            raise EngineError(f"BLIS uses its kernels for {held}, not those for {wanted}")
    return Blas("blis", "BLIS", library)


def mkl() -> Blas:
    """MKL of its wheel, on one thread."""
    return Blas("mkl", "MKL", _mkl())


def packed_mkl() -> PackedMkl:
    """The same, packed."""
    return PackedMkl(_mkl())


def _mkl() -> Any:
    return open_library(PACKAGES / "libmkl_rt.so.3", get=GROUP)
