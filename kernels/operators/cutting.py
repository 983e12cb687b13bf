"""ONNX's Slice and Pad, with their steps backwards and borders of every kind."""

from __future__ import annotations

import numpy as np

from kernels.elements import numpy_type
from kernels.operators.base import Array
from kernels.operators.expand import expanded
from kernels.operators.movement import part_of
from kernels.operators.node import Node, axis_of, integers, reshaped
from kernels.operators.sampling import taken
from kernels.program import Tensor

MOST_PLACES = 1 << 24


def _slice(node: Node) -> Tensor:
    """What lies forwards is one copy; each axis that is read backwards is chosen element by element."""
    x = node.given(0)
    starts, ends = integers(node, 1, "starts"), integers(node, 2, "ends")
    if starts is None or ends is None:
        raise node.refuse("it has no starts or no ends")
    axes = integers(node, 3, "axes", range(len(starts))) or ()
    steps = integers(node, 4, "steps", [1] * len(starts)) or ()
    bounds = [(0, extent, 1) for extent in x.shape]
    backwards = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis_of(node, axis, len(x.shape))
        if not step:
            raise node.refuse(f"axis {place} in steps of 0")
        low, high, _ = slice(start, end, step).indices(x.shape[place])
        if step > 0 or not range(low, high, step):
            bounds[place] = (low, high, step)
        else:
            backwards[place] = np.arange(low, high, step)
    y = part_of(node, x, bounds)
    if not y.elements:
        return y
    for place, chosen in backwards.items():
        y = taken(node, y, place, chosen)
    return y


def _pad(node: Node) -> Tensor:
    """Constants are put around; other borders are elements of x. Negative borders cut off."""
    x = node.given(0)
    pads = integers(node, 1, "pads") or ()
    axes = integers(node, 3, "axes", range(len(x.shape))) or ()
    borders = {
        axis_of(node, axis, len(x.shape)): (pads[number], pads[number + len(axes)])
        for number, axis in enumerate(axes)
    }
    mode = node.attribute("mode", "constant")
    if mode == "constant":
        return _within(node, x, borders)
    for axis, (before, after) in borders.items():
        x = taken(node, x, axis, _border(node, mode, x.shape[axis], before, after))
    return x


def _within(node: Node, x: Tensor, borders: dict[int, tuple[int, int]]) -> Tensor:
    """The part of x that is left, within constants."""
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    bounds = [(0, extent, 1) for extent in x.shape]
    for axis, (first, last) in borders.items():
        before[axis], after[axis] = max(first, 0), max(last, 0)
        bounds[axis] = (max(-first, 0), x.shape[axis] - max(-last, 0), 1)
        if bounds[axis][0] >= bounds[axis][1]:
            raise node.refuse(f"borders {first} and {last} leave nothing of an axis of {x.shape[axis]}")
    x = part_of(node, x, bounds)
    if not any(before + after):
        return x
    value = node.attribute("value", 0.0)
    if node.is_unknown(2):
        return _joined(node, x, before, after, node.given(2))
    if len(node.inputs) > 2 and node.inputs[2] is not None:  # noqa: PLR2004 - the value
        value = float(np.ravel(node.known(2, "value"))[0])
    if not np.isfinite(value):
        return _joined(node, x, before, after, node.constant(np.full((), value, numpy_type(x.dtype))))
    return node.call("pad", {"x": x}, {"before": before, "after": after, "value": value})


def _joined(node: Node, x: Tensor, before: list[int], after: list[int], value: Tensor) -> Tensor:
    """The border as tensors of its own: of a value that no attribute can hold, or that nobody knows yet."""
    rank = len(x.shape)
    for axis in range(rank):
        parts = [
            expanded(
                node, reshaped(node, value, (1,) * rank), (*x.shape[:axis], extent, *x.shape[axis + 1 :])
            )
            for extent in (before[axis], after[axis])
            if extent
        ]
        parts.insert(min(before[axis], 1), x)
        if len(parts) > 1:
            x = node.call("concat", {f"x{n}": part for n, part in enumerate(parts)}, {"axis": axis})
    return x


def _border(node: Node, mode: str, extent: int, before: int, after: int) -> Array:
    """The places of x along an axis of y."""
    if before + extent + after > MOST_PLACES:
        raise node.refuse(f"an axis of {before + extent + after} with its borders; at most {MOST_PLACES}")
    places = np.arange(-before, extent + after)
    if not places.size:
        raise node.refuse(f"borders {before} and {after} leave nothing of an axis of {extent}")
    if mode == "edge":
        return np.clip(places, 0, extent - 1)
    if mode == "wrap":
        return places % extent
    if mode == "reflect":
        period = max(1, 2 * (extent - 1))
        return (extent - 1) - np.abs((extent - 1) - places % period)
    raise node.refuse(f"mode '{mode}'")


ONNX = {"Slice": _slice, "Pad": _pad}
