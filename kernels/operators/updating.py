"""ONNX's operators that put elements at places: scatters, caches, unpooling, columns to images."""

from __future__ import annotations

from math import prod

import numpy as np

from kernels.elements import numpy_type
from kernels.operators.base import Array, Shape
from kernels.operators.binary import both
from kernels.operators.expand import expanded
from kernels.operators.indexing import as_indices
from kernels.operators.movement import part_of
from kernels.operators.node import Node, axis_of, integers, optional, reshaped, transposed
from kernels.operators.scattering import JOINS
from kernels.program import ElementType, Tensor


def _scattered(node: Node, kind: str, x: Tensor, indices: Tensor, updates: Tensor, **words: int) -> Tensor:
    """X with the updates; the importer's own attribute says how they are joined."""
    reduction = node.attribute("reduction", "none")
    if reduction not in JOINS:
        raise node.refuse(f"reduction '{reduction}'")
    attributes = {**words, "reduction": reduction, "index_type": indices.dtype.value}
    return node.call(kind, {"x": x, "indices": indices, "updates": updates}, attributes)


def _scatter_elements(node: Node) -> Tensor:
    x = node.given(0)
    axis = axis_of(node, node.attribute("axis", 0), len(x.shape))
    return _scattered(node, "scatter_elements", x, as_indices(node, 1), node.given(2), axis=axis)


def _scatter_nd(node: Node) -> Tensor:
    x, updates = node.given(0), node.given(2)
    updates = reshaped(node, updates, updates.shape or (1,))
    return _scattered(node, "scatter_nd", x, as_indices(node, 1), updates)


def _tensor_scatter(node: Node) -> Tensor:
    """Steps of each batch from its own place on, which begin again at the first if it is a ring."""
    cache, steps = node.given(0), node.given(1)
    rank = len(cache.shape)
    axis = axis_of(node, node.attribute("axis", -2), rank)
    mode = node.attribute("mode", "linear")
    if axis == 0 or mode not in ("linear", "circular"):
        raise node.refuse(f"mode '{mode}' along axis {axis}")
    order = (0, axis, *(other for other in range(1, rank) if other != axis))
    batch, many, size = cache.shape[0], steps.shape[axis], cache.shape[axis]
    given = optional(node, 2)
    first = node.constant(np.zeros(batch, np.int64)) if given is None else as_indices(node, 2)
    kind = numpy_type(first.dtype)
    places = both(
        node, "add", reshaped(node, first, (batch, 1)), node.constant(np.arange(many, dtype=kind))
    )
    if mode == "circular":
        places = both(node, "mod", places, node.constant(np.array([size], kind)))
    rows = np.broadcast_to(np.arange(batch, dtype=kind)[:, None, None], (batch, many, 1))
    pairs = {"x0": node.constant(rows), "x1": reshaped(node, places, (batch, many, 1))}
    indices = node.call("concat", pairs, {"axis": 2})
    moved = (transposed(node, tensor, order) for tensor in (cache, steps))
    x, updates = moved
    y = _scattered(node, "scatter_nd", x, indices, updates)
    return transposed(node, y, tuple(int(place) for place in np.argsort(order)))


def _max_unpool(node: Node) -> Tensor:
    """Zero but at the places that pooling found, which count through a whole tensor."""
    x, indices = node.given(0), as_indices(node, 1)
    count = len(x.shape) - 2
    kernel = node.attribute("kernel_shape")
    strides, pads = node.attribute("strides", (1,) * count), node.attribute("pads", (0,) * (2 * count))
    sizes = [
        (x.shape[2 + axis] - 1) * strides[axis] - pads[axis] - pads[count + axis] + kernel[axis]
        for axis in range(count)
    ]
    shape = (*x.shape[:2], *sizes)
    flat = (x.elements,)
    empty = _zeros(node, (prod(shape),), x.dtype)
    y = _scattered(
        node, "scatter_elements", empty, reshaped(node, indices, flat), reshaped(node, x, flat), axis=0
    )
    y = reshaped(node, y, shape)
    wanted = integers(node, 2, "output_shape") or shape
    border = tuple(more - extent for more, extent in zip(wanted, shape, strict=True))
    if min(border) < 0:
        raise node.refuse(f"output_shape {list(wanted)}, where windows alone make {list(shape)}")
    if not any(border):
        return y
    return node.call("pad", {"x": y}, {"before": (0,) * len(shape), "after": border, "value": 0.0})


def _col2im(node: Node) -> Tensor:
    """The sum of all blocks, each added where it was taken from; what lies in the border is cut off."""
    x = node.given(0)
    image, block = (integers(node, number, "shape") or () for number in (1, 2))
    count = len(image)
    strides, dilations = (node.attribute(key, (1,) * count) for key in ("strides", "dilations"))
    pads = node.attribute("pads", (0,) * (2 * count))
    padded = tuple(pads[axis] + extent + pads[count + axis] for axis, extent in enumerate(image))
    at = _block_places(padded, block, strides, dilations)
    batch, channels = x.shape[0], x.shape[1] // prod(block)
    if x.shape[1:] != (channels * prod(block), at.size // prod(block)):
        raise node.refuse(f"blocks of shape {list(x.shape)}, where {at.size // prod(block)} are needed")
    columns = reshaped(node, x, (batch * channels, at.size))
    updates = transposed(node, columns, (1, 0))
    words = {"reduction": "add", "index_type": "int64"}
    operands = {
        "x": _zeros(node, (prod(padded), batch * channels), x.dtype),
        "indices": node.constant(at.reshape(-1, 1)),
        "updates": updates,
    }
    y = transposed(node, node.call("scatter_nd", operands, words), (1, 0))
    y = reshaped(node, y, (batch, channels, *padded))
    bounds = [(0, batch, 1), (0, channels, 1)]
    bounds += [(pads[axis], pads[axis] + extent, 1) for axis, extent in enumerate(image)]
    return part_of(node, y, bounds)


def _block_places(padded: Shape, block: Shape, strides: Shape, dilations: Shape) -> Array:
    """For each element of a block, and for each block, its place in the image with its border."""
    taps = np.indices(block).reshape(len(block), -1, 1) * np.reshape(dilations, (-1, 1, 1))
    blocks = [
        max(0, (extent - dilation * (size - 1) - 1) // stride + 1)
        for extent, size, stride, dilation in zip(padded, block, strides, dilations, strict=True)
    ]
    starts = np.indices(blocks).reshape(len(block), 1, -1) * np.reshape(strides, (-1, 1, 1))
    return np.asarray(np.ravel_multi_index(tuple(taps + starts), padded), np.int64)


def _zeros(node: Node, shape: Shape, dtype: ElementType) -> Tensor:
    """Made when it is needed: a constant would be as long as it is."""
    return expanded(node, node.constant(np.zeros((1,) * len(shape), numpy_type(dtype))), shape)


ONNX = {
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
    "MaxUnpool": _max_unpool,
    "Col2Im": _col2im,
}
