"""Softmax over the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels.operators.base import (
    Array,
    Definition,
    Epilogue,
    Estimate,
    Family,
    Planned,
    Shape,
    positive,
)
from kernels.operators.elementary import exp
from kernels.operators.elementwise import MapEntry, NoAttributes
from kernels.plan import Kernel
from kernels.program import Role, Tensor
from kernels.schedules import channels
from toolchains.target import CPU


class Softmax(Family):
    """y_i = exp(x_i - max x) / sum of exp(x_j - max x), along the last axis."""

    kind = "softmax"
    entry = MapEntry
    attributes = NoAttributes
    input_scale = 8.0

    def define(self, entry: MapEntry) -> Definition:
        """Tensors x and y of one shape."""
        shape = positive("inputs.x", entry.inputs.x)
        return Definition(
            attributes={},
            operands=(Tensor(name="x", shape=shape, role=Role.INPUT),),
            output=Tensor(name="y", shape=shape, role=Role.OUTPUT),
        )

    def flops(self, attributes: Any, shapes: Mapping[str, Shape]) -> int:
        """Five for each element: maximum, difference, exponential, sum, scaling."""
        return 5 * int(np.prod(shapes["x"]))

    def plan(
        self, attributes: Any, shapes: Mapping[str, Shape], weights: frozenset[str], cpu: CPU
    ) -> Planned:
        """Nothing to decide."""
        return Planned()

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Three passes over a row that stays in the cache: maximum, exponentials, scaling."""
        x, y = b.buffers["x"], b.buffers["y"]
        columns = kernel.output.shape[-1]
        with b.loop(0, kernel.output.elements // columns) as row:
            start = row * columns
            largest = channels.emit_fold(
                b,
                start,
                columns,
                -float("inf"),
                lambda at, lanes: b.load(x, at, lanes),
                lambda a, c: b.select(c > a, c, a),
            )

            def exponential(at: Any, lanes: int) -> Any:
                value = b.let(exp(b, b.load(x, at, lanes) - b.splat(largest, lanes)))
                b.store(y, at, value)
                return value

            total = channels.emit_fold(b, start, columns, 0.0, exponential, lambda a, c: a + c)
            scale = b.let(b.constant(1.0, 1) / total)

            def scaling(column: Any, lanes: int) -> None:
                value = b.load(y, start + column, lanes) * b.splat(scale, lanes)
                b.store(y, start + column, epilogue(value, row, column))

            channels.emit_map(b, columns, scaling)

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """Relative errors add up over the row.

        u |x_i - max| comes from each difference, 4 u from each exponential (2 units in the
        last place), and u from each addition, the reciprocal and the product.
        """
        x = arrays["x"].astype(np.float64)
        distance = x - x.max(axis=-1, keepdims=True)
        value = np.exp(distance)
        value /= value.sum(axis=-1, keepdims=True)
        average = (value * -distance).sum(axis=-1, keepdims=True)
        terms = x.shape[-1] + 12
        return Estimate(value=value, magnitude=value * (terms - distance + average), roundings=1)


FAMILIES = (Softmax(),)
