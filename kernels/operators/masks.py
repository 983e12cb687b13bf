"""What is kept, or set, where places are compared: ONNX's Trilu, EyeLike, OneHot and Hardmax."""

from __future__ import annotations

from math import prod

import numpy as np

from kernels.elements import numpy_type
from kernels.operators.cast import NUMBERS, cast
from kernels.operators.comparison import joined
from kernels.operators.indexing import INDEX_TYPES
from kernels.operators.movement import part_of
from kernels.operators.node import Node, axis_of, integers, reshaped
from kernels.operators.softmax import LAST_TO_FLATTEN
from kernels.program import ElementType, Tensor


def _trilu(node: Node) -> Tensor:
    """Zero below diagonal k, or else above it."""
    x, (k,) = node.given(0), integers(node, 1, "k", 0) or (0,)
    *_, rows, columns = (1, 1, *x.shape)
    above = np.arange(columns) - np.arange(rows)[:, None]
    kept = above >= k if node.attribute("upper", 1) else above <= k
    return joined(node, "where", {"condition": node.constant(kept), "a": x, "b": _number(node, 0, x.dtype)})


def _eye_like(node: Node) -> Tensor:
    """A constant, for of the input only its shape and type count."""
    x = node.given(0)
    if len(x.shape) != 2:  # noqa: PLR2004 - a matrix
        raise node.refuse(f"a tensor of {len(x.shape)} dimensions")
    dtype = NUMBERS.get(node.attribute("dtype"), x.dtype)
    return node.constant(np.eye(*x.shape, k=node.attribute("k", 0)).astype(numpy_type(dtype)))


def _one_hot(node: Node) -> Tensor:
    """Indices are compared with every number along a new axis; those beyond are nowhere."""
    indices, depth = node.given(0), int(node.known(1, "depth").ravel()[0])
    if depth < 1:
        raise node.refuse(f"a depth of {depth}: the result has no elements")
    axis = axis_of(node, node.attribute("axis", -1), len(indices.shape) + 1)
    if indices.dtype not in INDEX_TYPES:
        indices = cast(node, indices, ElementType.INT64)
    negative = joined(node, "less", {"a": indices, "b": _number(node, 0, indices.dtype)})
    moved = joined(node, "add", {"a": indices, "b": _number(node, depth, indices.dtype)})
    places = joined(node, "where", {"condition": negative, "a": moved, "b": indices})
    places = reshaped(node, places, (*places.shape[:axis], 1, *places.shape[axis:]))
    hit = _hit(node, places, axis, depth)
    off, on = (reshaped(node, part_of(node, node.given(2), [(n, n + 1, 1)]), ()) for n in range(2))
    return joined(node, "where", {"condition": hit, "a": on, "b": off})


def _hardmax(node: Node) -> Tensor:
    """One at the first of the largest elements, and zero elsewhere."""
    given = node.given(0)
    flattens = node.opset <= LAST_TO_FLATTEN
    axis = axis_of(node, node.attribute("axis", 1 if flattens else -1), len(given.shape))
    x = given
    if flattens:
        x, axis = reshaped(node, x, (prod(x.shape[:axis]), prod(x.shape[axis:]))), 1
    hit = _hit(node, node.call("arg_max", {"x": x}, {"axis": axis}), axis, x.shape[axis])
    return reshaped(node, cast(node, hit, x.dtype), given.shape)


def _hit(node: Node, places: Tensor, axis: int, extent: int) -> Tensor:
    """Whether the place along an axis, on which `places` has the extent 1, is the one that is named."""
    shape = tuple(extent if number == axis else 1 for number in range(len(places.shape)))
    numbers = np.arange(extent, dtype=numpy_type(places.dtype)).reshape(shape)
    return joined(node, "equal", {"a": places, "b": node.constant(numbers)})


def _number(node: Node, value: int, dtype: ElementType) -> Tensor:
    return node.constant(np.array(value, numpy_type(dtype)))


ONNX = {"Trilu": _trilu, "EyeLike": _eye_like, "OneHot": _one_hot, "Hardmax": _hardmax}
