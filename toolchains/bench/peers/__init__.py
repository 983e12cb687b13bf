"""Peers: the libraries that the bench measures beside our kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kernels.errors import EngineError, MissingToolError
from toolchains.bench.peers import blas
from toolchains.bench.peers.base import Peer
from toolchains.bench.peers.eigen import Eigen
from toolchains.bench.peers.libxsmm import Libxsmm
from toolchains.bench.peers.onednn import Onednn
from toolchains.bench.peers.xnnpack import Xnnpack
from toolchains.native import own_target
from toolchains.target import Target

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_THREADING_LAYER": "SEQUENTIAL",
}
HELD: dict[str, dict[str, str]] = {
    "x86_64": {
        "OPENBLAS_CORETYPE": "Haswell",
        "BLIS_ARCH_TYPE": "haswell",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "LIBXSMM_TARGET": "hsw",
    },
    "x86_64-avx512": {"BLIS_ARCH_TYPE": "skx"},
}
"""By target, the variables that hold a peer to its instructions (each library's manual).

BLIS chooses by the processor's name, and takes a newer one for a Haswell.
"""
UNHELD = {"x86_64": ("xnnpack",)}
"""Peers that cannot be held to a target's instructions, so are no contestants on a machine with more."""


def open_peers(target: Target, folder: Path) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, and for each of the others how to get it."""
    makers: dict[str, Callable[[], Peer]] = {
        "openblas": blas.openblas,
        "blis": lambda: blas.blis(target),
        "mkl": blas.mkl,
        "mkl-packed": blas.packed_mkl,
        "onednn-packed": Onednn,
        "libxsmm-packed": lambda: Libxsmm(target, folder),
        "xnnpack": lambda: Xnnpack(target),
        "eigen": lambda: Eigen(target, folder),
    }
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for name, make in makers.items():
        if name in UNHELD.get(target.name, ()) and target.name != own_target():
            missing[name] = f"cannot be held to the instructions of {target.name}"
            continue
        try:
            found.append(make())
        except (MissingToolError, EngineError) as error:
            missing[name] = str(error)
    return found, missing
