"""Places along an axis by a rule: ONNX's Compress and ReverseSequence."""

from __future__ import annotations

import numpy as np

from kernels.elements import numpy_type
from kernels.operators.comparison import joined
from kernels.operators.indexing import as_indices, parts_of
from kernels.operators.node import Node, axis_of, reshaped, transposed
from kernels.operators.sampling import taken
from kernels.program import Tensor


def _compress(node: Node) -> Tensor:
    """The places where a constant condition holds: how many there are is the result's shape."""
    x, chosen = node.given(0), np.flatnonzero(node.known(1, "condition"))
    axis = node.attribute("axis")
    if axis is None:
        x, axis = reshaped(node, x, (x.elements,)), 0
    axis = axis_of(node, axis, len(x.shape))
    if not chosen.size or chosen[-1] >= x.shape[axis]:
        raise node.refuse(
            f"its condition chooses the places {chosen.tolist()} of an axis of {x.shape[axis]}"
        )
    return taken(node, x, axis, chosen)


def _reverse_sequence(node: Node) -> Tensor:
    """Of each batch the first steps in time, as many as its length says, turned around."""
    x, lengths = node.given(0), as_indices(node, 1)
    batch = axis_of(node, node.attribute("batch_axis", 1), len(x.shape))
    time = axis_of(node, node.attribute("time_axis", 0), len(x.shape))
    if batch == time:
        raise node.refuse(f"axis {batch} is both that of batches and that of time")
    order = (batch, time, *(axis for axis in range(len(x.shape)) if axis not in (batch, time)))
    steps = node.constant(np.arange(x.shape[time], dtype=numpy_type(lengths.dtype))[None, :])
    ends = reshaped(node, lengths, (x.shape[batch], 1))
    one = node.constant(np.ones((1, 1), numpy_type(lengths.dtype)))
    last = joined(node, "sub", {"a": ends, "b": one})
    turned = joined(node, "sub", {"a": last, "b": steps})
    inside = joined(node, "less", {"a": steps, "b": ends})
    places = joined(node, "where", {"condition": inside, "a": turned, "b": steps})
    y = parts_of(node, transposed(node, x, order), reshaped(node, places, (*places.shape, 1)), batch=1)
    return transposed(node, y, tuple(int(axis) for axis in np.argsort(order)))


ONNX = {
    "Compress": _compress,
    "ReverseSequence": _reverse_sequence,
}
