"""Program in, Plan out: folding, layouts, fusion, schedules, packing, memory; no TVM."""

from __future__ import annotations

from kernels.graph.affine import fold_affine
from kernels.graph.fuse import fuse
from kernels.graph.layout import lay_out
from kernels.graph.patterns import combine
from kernels.graph.scaling import fold_scales
from kernels.graph.settle import settle
from kernels.graph.tidy import tidy
from kernels.program import Network


def optimise(network: Network) -> Network:
    """The network as kernels will compute it."""
    for improve in PASSES:
        network = improve(network)
    return network


PASSES = (lay_out, tidy, combine, fold_scales, fold_affine, fuse, settle)
"""Each gives the same network, improved, and works without the others."""
