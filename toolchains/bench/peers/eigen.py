"""Eigen: templates of C++, compiled here for the target's instructions."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from kernels.errors import EngineError
from kernels.plan import Kernel
from toolchains.bench.harness import Call, Contestant, address
from toolchains.bench.peers import debian
from toolchains.bench.peers.base import Arrays, product
from toolchains.limits import limit
from toolchains.link import zig_environment
from toolchains.process import run
from toolchains.target import Target

SOURCE = """
#include <cstdlib>
#include <Eigen/Dense>
void *operator new(std::size_t bytes) { return std::malloc(bytes); }
typedef Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> Matrix;
extern "C" void product(long m, long n, long k, const float *a, const float *b, float *c)
{
    Eigen::Map<const Matrix> left(a, m, k), right(b, k, n);
    Eigen::Map<Matrix>(c, m, n).noalias() = left * right;
}
"""
FLAGS = ("-O3", "-DNDEBUG", "-w", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics")
"""Optimised, and with nothing of the C++ library but its headers: zig would compile all of that first."""


class Eigen:
    """Products of mapped row-major matrices."""

    name, title = "eigen", "Eigen"

    def __init__(self, target: Target, folder: Path) -> None:
        """Compile into `folder`; MissingToolError without the headers."""
        headers = debian.find(target, "Eigen", "usr/include/eigen3")
        source, library = folder / "eigen.cpp", folder / "eigen.so"
        source.write_text(SOURCE, encoding="utf-8")
        zig, object_file = [sys.executable, "-m", "ziglang"], folder / "eigen.o"
        for words in (
            ["c++", *target.c.zig_flags, *FLAGS, f"-I{headers}", "-c", "-o", object_file, source],
            ["ld.lld", "-shared", "-o", library, object_file],
        ):
            done = run([*zig, *map(str, words)], timeout=limit("tool"), env=zig_environment())
            if done.status != 0:
                raise EngineError(f"Eigen does not compile: {done.output}")
        self._product = address(ctypes.CDLL(str(library)).product)

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """One call."""
        p = product(kernel, arrays)
        if p is None:
            return []
        places = (p.a.ctypes.data, p.b.ctypes.data, p.c.ctypes.data)
        call = Call(function=self._product, integers=(p.m, p.n, p.k, *places))
        return [Contestant(name=self.name, calls=[call], output=p.c, alive=p)]
