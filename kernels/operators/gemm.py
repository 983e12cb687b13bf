"""Matrix products: C[m, n] = op(A) op(B), row-major, with a fused epilogue."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Literal

import msgspec
import numpy as np

from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Planned,
    Scheduler,
    Shapes,
    positive,
)
from kernels.plan import Kernel, Packing
from kernels.program import Role, Tensor
from kernels.schedules import contraction
from kernels.schedules.blocking import Contraction, choose
from kernels.schedules.tiles import Window

Transpose = Literal["nn", "nt", "tn", "tt"]


class GemmEntry(Entry, frozen=True, kw_only=True):
    """`transpose`: which of A and B is stored transposed, as in BLAS; `weights`: default B.

    Of a `batch` of products, a weight B is shared, an activation is not.
    """

    m: int
    n: int
    k: int
    transpose: Transpose = "nn"
    batch: int = 1
    weights: tuple[Literal["b"], ...] = ("b",)


class GemmAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attributes of a matrix product."""

    transpose: Transpose = "nn"


class Gemm(Family):
    """A is [m, k] ([k, m] if transposed), B is [k, n] ([n, k] if transposed)."""

    kind = "gemm"
    entry = GemmEntry
    attributes = GemmAttributes

    def define(self, entry: GemmEntry) -> Definition:
        """Tensors a, b and c."""
        m, n, k = entry.m, entry.n, entry.k
        for key, extent in (("m", m), ("n", n), ("k", k), ("batch", entry.batch)):
            positive(key, (extent,))
        a, b = entry.transpose
        role = Role.CONSTANT if "b" in entry.weights else Role.INPUT
        batch = (entry.batch,) if entry.batch > 1 else ()
        shared = () if role is Role.CONSTANT else batch
        return Definition(
            attributes={"transpose": entry.transpose},
            operands=(
                Tensor(name="a", shape=(*batch, m, k) if a == "n" else (*batch, k, m), role=Role.INPUT),
                Tensor(name="b", shape=(*shared, k, n) if b == "n" else (*shared, n, k), role=role),
            ),
            output=Tensor(name="c", shape=(*batch, m, n), role=Role.OUTPUT),
        )

    def flops(self, attributes: GemmAttributes, shapes: Shapes) -> int:
        """2 m n k, for each product of a batch."""
        batch, m, n, k = _extents(attributes, shapes)
        return 2 * batch * m * n * k

    def plan(
        self,
        attributes: GemmAttributes,
        shapes: Shapes,
        weights: frozenset[str],
        by: Scheduler,
    ) -> Planned:
        """Panels of B: packed ahead if it is a weight, in the arena if it is transposed."""
        batch, m, n, k = _extents(attributes, shapes)
        schedule = by.schedule(Contraction, lambda: choose(_window(batch, m, k), n, by.cpu))
        transposed = attributes.transpose[1] == "t"
        if "b" in weights:
            permute = (1, 0) if transposed else (0, 1)
            packing = Packing(permute=permute, rows=k, columns=n, panel=schedule.nr, groups=1)
            return Planned(schedule=schedule, packing={"b": packing})
        return Planned(schedule=schedule, arena_bytes=4 * batch * k * n if transposed else 0)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """An image of one row of m pixels with k channels for each product, one tap."""
        attributes = msgspec.convert(kernel.attributes, GemmAttributes)
        batch, m, n, k = _extents(attributes, {o.name: o.shape for o in kernel.operands})
        schedule = msgspec.convert(kernel.schedule, Contraction)
        a_transposed, b_transposed = (c == "t" for c in attributes.transpose)
        packed = kernel.operand("b").packing is not None
        shared = packed or batch == 1
        panels = b.buffers["b"]
        if not packed and b_transposed:
            panels = b.buffers["arena"]
            with b.loop(0, batch) as number:
                contraction.emit_packing(
                    b, (b.buffers["b"], panels), number * (k * n), (k, n), schedule.nr, (1, k)
                )
            packed = True
        contraction.emit(
            b,
            contraction.Product(
                window=_window(batch, m, k),
                columns=n,
                schedule=schedule,
                image=contraction.Image(
                    batch=m * k, pixel=1 if a_transposed else k, channel=m if a_transposed else 1
                ),
                x=b.buffers["a"],
                w=panels,
                w_batch=0 if shared else k * n,
                y=b.buffers["c"],
                packed=packed,
                epilogue=epilogue,
            ),
        )

    def reference(self, attributes: GemmAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """K products and k additions: k roundings fused, at most k + 1 apart."""
        a, b = arrays["a"].astype(np.float64), arrays["b"].astype(np.float64)
        a = a.swapaxes(-1, -2) if attributes.transpose[0] == "t" else a
        b = b.swapaxes(-1, -2) if attributes.transpose[1] == "t" else b
        return Estimate(value=a @ b, magnitude=np.abs(a) @ np.abs(b), roundings=a.shape[-1] + 1)


def _window(batch: int, m: int, k: int) -> Window:
    return Window(batch=batch, size=(1, 1, m), channels=k, out=(1, 1, m))


def _extents(attributes: GemmAttributes, shapes: Shapes) -> tuple[int, int, int, int]:
    """batch, m, n, k."""
    *batch, m, n = shapes["c"]
    k = shapes["a"][-1 if attributes.transpose[0] == "n" else -2]
    return prod(batch), m, n, k


FAMILIES = (Gemm(),)
