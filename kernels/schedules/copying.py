"""Moving elements: affine copies between arrays, by loops that are merged where they can be."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from kernels.schedules.channels import emit_map

Axis = tuple[int, int, int]
"""extent, stride in the source, stride in the target; in elements."""


def merge(axes: list[Axis]) -> list[Axis]:
    """The same copy with the fewest axes, outermost first."""
    found: list[Axis] = []
    for extent, source, target in axes:
        if extent == 1:
            continue
        if found and found[-1][1:] == (source * extent, target * extent):
            found[-1] = (found[-1][0] * extent, source, target)
        else:
            found.append((extent, source, target))
    return found or [(1, 1, 1)]


def emit_copy(b: Any, source: tuple[Any, Any], target: tuple[Any, Any], axes: list[Axis]) -> None:
    """Copy between (buffer, offset) pairs: in vectors where the last axis is dense on both sides."""
    *outer, (extent, step_from, step_to) = merge(axes)
    (x, start), (y, end) = source, target
    with ExitStack() as loops:
        for count, stride_from, stride_to in outer:
            index = loops.enter_context(b.loop(0, count))
            start, end = start + index * stride_from, end + index * stride_to
        if step_from == step_to == 1:
            emit_map(b, extent, lambda at, lanes: b.store(y, end + at, b.load(x, start + at, lanes)))
        else:
            with b.loop(0, extent) as index:
                b.store(y, end + index * step_to, b.load(x, start + index * step_from, 1))
