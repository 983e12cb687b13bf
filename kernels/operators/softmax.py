"""Softmax and log-softmax over any axis."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.operators.base import (
    Array,
    Definition,
    Entry,
    Epilogue,
    Estimate,
    Family,
    Shape,
    Shapes,
    along_its_axis,
    from_one_input,
    positive,
)
from kernels.operators.elementary import exp, log
from kernels.operators.elementwise import OneInput
from kernels.operators.node import Node, axis_of, real, reshaped
from kernels.operators.reduction import normalized
from kernels.plan import Kernel
from kernels.program import Tensor
from kernels.schedules import channels


class AxisAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The axis, negative from the last."""

    axis: int = -1


class SoftmaxEntry(Entry, frozen=True, kw_only=True):
    """A softmax in a listing."""

    inputs: OneInput
    attributes: AxisAttributes = AxisAttributes()


class Softmax(Family):
    """y_i = exp(x_i - max x) / sum of exp(x_j - max x), along the axis."""

    kind = "softmax"
    entry = SoftmaxEntry
    attributes = AxisAttributes
    input_scale = 8.0
    fuses = False

    def define(self, entry: SoftmaxEntry) -> Definition:
        """Tensors x and y of one shape."""
        shape = positive("inputs.x", entry.inputs.x)
        normalized((entry.attributes.axis,), len(shape))
        return from_one_input(entry.attributes, shape, shape)

    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """Five for each element: maximum, difference, exponential, sum, scaling."""
        return 5 * prod(shapes["x"])

    def carried(self, attributes: AxisAttributes, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """Along the same axis, wherever it lies."""
        return along_its_axis(attributes, rank, axes)

    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Rows that are contiguous are folded across lanes; others stand side by side in lanes."""
        shape = kernel.output.shape
        attributes = msgspec.convert(kernel.attributes, AxisAttributes)
        (axis,) = normalized((attributes.axis,), len(shape))
        inner = prod(shape[axis + 1 :])
        with b.loop(0, prod(shape[:axis])) as outer:
            if inner == 1:
                self._row(b, outer, shape[axis], epilogue)
            else:
                start = outer * (shape[axis] * inner)
                channels.emit_map(
                    b,
                    inner,
                    lambda at, lanes: self._column(b, start + at, shape[axis], inner, lanes, epilogue),
                )

    def finish(self, b: Any, largest: Any, total: Any) -> tuple[Any, Any]:
        """What each exponential is multiplied by, and what is taken off each input."""
        return b.let(b.constant(1.0, b.lanes(total)) / total), largest

    def result(self, b: Any, x: Any, y: Any, scale: Any, shift: Any) -> Any:
        """One result from the input, its exponential and what `finish` gave."""
        return y * scale

    def _row(self, b: Any, row: Any, columns: int, epilogue: Epilogue) -> None:
        x, y = b.buffers["x"], b.buffers["y"]
        start = row * columns
        largest = channels.emit_fold(
            b,
            start,
            columns,
            -float("inf"),
            lambda at, lanes: b.load(x, at, lanes),
            lambda a, c: b.select(c > a, c, a),
            chains=4,
        )

        def exponential(at: Any, lanes: int) -> Any:
            value = b.let(exp(b, b.load(x, at, lanes) - b.splat(largest, lanes)))
            b.store(y, at, value)
            return value

        total = channels.emit_fold(b, start, columns, 0.0, exponential, lambda a, c: a + c, chains=2)
        scale, shift = self.finish(b, largest, total)

        def scaling(column: Any, lanes: int) -> None:
            at = start + column
            value = self.result(
                b, b.load(x, at, lanes), b.load(y, at, lanes), b.splat(scale, lanes), b.splat(shift, lanes)
            )
            b.store(y, at, epilogue(value, row, column))

        channels.emit_map(b, columns, scaling)

    def _column(self, b: Any, start: Any, count: int, step: int, lanes: int, epilogue: Epilogue) -> None:
        x, y = b.buffers["x"], b.buffers["y"]
        state = b.registers([lanes, lanes])
        state[0], state[1] = b.constant(-float("inf"), lanes), b.constant(0.0, lanes)
        with b.loop(0, count) as i:
            value = b.let(b.load(x, start + i * step, lanes))
            state[0] = b.select(value > state[0], value, state[0])
        with b.loop(0, count) as i:
            value = b.let(exp(b, b.load(x, start + i * step, lanes) - state[0]))
            b.store(y, start + i * step, value)
            state[1] = state[1] + value
        scale, shift = self.finish(b, b.let(state[0]), b.let(state[1]))
        with b.loop(0, count) as i:
            at = start + i * step
            value = self.result(b, b.load(x, at, lanes), b.load(y, at, lanes), scale, shift)
            b.store(y, at, epilogue(value, 0, at))

    def reference(self, attributes: AxisAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """Relative errors add up over the row.

        u |x_i - max| comes from each difference, 4 u from each exponential (2 units in the
        last place), and u from each addition, the reciprocal and the product.
        """
        distance, value, error = self._shares(attributes, arrays)
        return Estimate(value=value, magnitude=value * error + _weighted(value, distance), roundings=1)

    @staticmethod
    def _shares(attributes: AxisAttributes, arrays: Mapping[str, Array]) -> tuple[Array, Array, Array]:
        x = arrays["x"].astype(np.float64)
        axis = attributes.axis
        distance = x - x.max(axis=axis, keepdims=True)
        value = np.exp(distance)
        value /= value.sum(axis=axis, keepdims=True)
        average = _weighted(value, distance).sum(axis=axis, keepdims=True)
        return distance, value, x.shape[axis] + 12 + average


def _weighted(value: Array, distance: Array) -> Array:
    """The shares times their distances; nothing where a share is nothing, however far away."""
    return np.multiply(value, -distance, out=np.zeros_like(value), where=value != 0)


class LogSoftmax(Softmax):
    """y_i = x_i - max x - ln(sum of exp(x_j - max x)), along the axis."""

    kind = "log_softmax"

    def finish(self, b: Any, largest: Any, total: Any) -> tuple[Any, Any]:
        """The logarithm of the sum, and the maximum."""
        return log(b, total), largest

    def result(self, b: Any, x: Any, y: Any, scale: Any, shift: Any) -> Any:
        """Two differences."""
        return b.let(x - shift) - scale

    def reference(self, attributes: AxisAttributes, arrays: Mapping[str, Array]) -> Estimate:
        """The sum's relative error is the logarithm's absolute one; two differences round."""
        distance, value, error = self._shares(attributes, arrays)
        result = np.log(value)
        return Estimate(
            value=result, magnitude=2 * np.abs(distance) + 3 * np.abs(result) + error, roundings=1
        )


FAMILIES = (Softmax(), LogSoftmax())


LAST_TO_FLATTEN = 12
"""The last opset in which everything from the axis on is one row."""


def _softmax(node: Node) -> Tensor:
    x = node.given(0)
    real(node, x)
    kind = "softmax" if node.op == "Softmax" else "log_softmax"
    if node.opset > LAST_TO_FLATTEN:
        axis = axis_of(node, node.attribute("axis", -1), len(x.shape))
        return node.call(kind, {"x": x}, {"axis": axis})
    axis = axis_of(node, node.attribute("axis", 1), len(x.shape))
    rows = reshaped(node, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
    return reshaped(node, node.call(kind, {"x": rows}, {"axis": -1}), x.shape)


ONNX = {"Softmax": _softmax, "LogSoftmax": _softmax}
