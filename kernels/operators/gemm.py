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
    Shape,
    Shapes,
    positive,
)
from kernels.operators.expand import expanded
from kernels.operators.node import Node, real, reshaped
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

    def absorbed(self, attributes: GemmAttributes, operand: str, permute: Shape, x: Tensor) -> Any:
        """A matrix the other way round."""
        rank = len(permute)
        if permute != (*range(rank - 2), rank - 1, rank - 2):
            return None
        a, b = attributes.transpose
        other = {"n": "t", "t": "n"}
        words: dict[str, Transpose] = {"nn": "nn", "nt": "nt", "tn": "tn", "tt": "tt"}
        return GemmAttributes(transpose=words[other[a] + b if operand == "a" else a + other[b]])

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
        window = _window(batch, m, k)
        schedule = by.schedule(Contraction, lambda: choose(window, n, by.cpu))
        once = not schedule.suspends(window)
        transposed = attributes.transpose[1] == "t"
        if "b" in weights and len(shapes["b"]) == 2:  # noqa: PLR2004 - a matrix, not a batch of them
            permute = (1, 0) if transposed else (0, 1)
            packing = Packing(permute=permute, rows=k, columns=n, panel=schedule.nr, groups=1)
            return Planned(schedule=schedule, packing={"b": packing}, written_once=once)
        arena = 4 * batch * k * n if transposed else 0
        return Planned(schedule=schedule, arena_bytes=arena, written_once=once)

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


def _gemm(node: Node) -> Tensor:
    a, b = node.given(0), node.given(1)
    real(node, a, b)
    if not len(a.shape) == len(b.shape) == 2:  # noqa: PLR2004 - matrices
        raise node.refuse(f"operands of shapes {list(a.shape)} and {list(b.shape)} are no matrices")
    a_transposed, b_transposed = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    value = node.value(1)
    if value is not None:  # as [k, n], whose columns are packed as they stand
        b = node.constant(_columns(value) if b_transposed else value)
        b_transposed = False
    y = _product(node, a, b, "nt"[a_transposed] + "nt"[b_transposed])
    if alpha != 1.0:
        y = node.call("mul", {"a": y, "b": node.constant(np.array([alpha], np.float32))})
    if len(node.inputs) > 2 and node.inputs[2] is not None and beta != 0.0:  # noqa: PLR2004 - C
        c, addend = node.given(2), node.value(2)
        if beta != 1.0 and addend is not None:
            c = node.constant(addend * np.float64(beta))
        elif beta != 1.0:
            c = node.call("mul", {"a": c, "b": node.constant(np.array([beta], np.float32))})
        y = node.call("add", {"a": y, "b": reshaped(node, c, c.shape or (1,))})
    return y


def _columns(matrix: Array) -> Array:
    """The transposed matrix, made in strips that stay in the cache."""
    result = np.empty(matrix.shape[::-1], matrix.dtype)
    for first in range(0, matrix.shape[0], STRIP):
        result[:, first : first + STRIP] = matrix[first : first + STRIP].T
    return result


STRIP = 16


def _product(node: Node, a: Tensor, b: Tensor, transpose: str) -> Tensor:
    """op(A) op(B) of matrices, or of batches of them; a constant matrix B is a weight."""
    constant = node.is_constant(b) and len(b.shape) == 2  # noqa: PLR2004 - a matrix
    m, k = a.shape[-2:] if transpose[0] == "n" else a.shape[:-3:-1]
    rows, n = b.shape[-2:] if transpose[1] == "n" else b.shape[:-3:-1]
    if rows != k:
        raise node.refuse(f"products of {m} x {k} with {rows} x {n} do not exist")
    batch = prod(a.shape[:-2])
    keys: dict[str, Any] = {"m": m, "n": n, "k": k, "transpose": transpose, "batch": batch}
    return node.call("gemm", {"a": a, "b": b}, weights=("b",) if constant else (), **keys)


def _matmul(node: Node) -> Tensor:
    return multiplied(node, node.given(0), node.given(1))


def multiplied(node: Node, first: Tensor, second: Tensor) -> Tensor:
    """A product as NumPy's and ONNX's: of matrices, of vectors, and of batches that broadcast."""
    a, b = first, second
    real(node, a, b)
    if not a.shape or not b.shape:
        raise node.refuse("a scalar is no matrix")
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    try:
        outer = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError as error:
        raise node.refuse(f"{list(a.shape)} and {list(b.shape)} do not broadcast") from error
    (m, k), n = left[-2:], right[-1]
    if prod(right[:-2]) == 1:  # one B for all rows of A
        a, b = reshaped(node, a, (prod(left[:-1]), k)), reshaped(node, b, right[-2:])
    else:
        a = reshaped(node, _repeated(node, a, left, outer), (prod(outer), m, k))
        b = reshaped(node, _repeated(node, b, right, outer), (prod(outer), *right[-2:]))
    y = _product(node, a, b, "nn")
    rows = (m,) if len(first.shape) > 1 else ()
    columns = (n,) if len(second.shape) > 1 else ()
    return reshaped(node, y, (*outer, *rows, *columns))


def _repeated(node: Node, x: Tensor, shape: Shape, outer: Shape) -> Tensor:
    """Matrices of a shape, repeated to a batch of the shape `outer`; a constant when it is read."""
    value = node.constant_value(x)
    if value is not None:
        whole = np.broadcast_to(value.reshape(shape), (*outer, *shape[-2:]))
        return x if whole.size == value.size else node.constant(np.ascontiguousarray(whole))
    return expanded(node, reshaped(node, x, shape), (*outer, *shape[-2:]))


ONNX = {"Gemm": _gemm, "MatMul": _matmul}
