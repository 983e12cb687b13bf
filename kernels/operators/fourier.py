"""ONNX's DFT and STFT, as products with constant matrices.

Of a length n they take n^2 multiply-adds, in one matrix product; there is no fast transform.
"""

from __future__ import annotations

import numpy as np

from kernels.operators.base import Array
from kernels.operators.binary import both
from kernels.operators.gemm import multiplied
from kernels.operators.node import Node, axis_of, integers, real, reshaped, transposed
from kernels.operators.sampling import taken
from kernels.program import Tensor

AXIS_OPSET = 20
"""From there on the axis is an input, counted from the last."""
MOST = 1 << 12
"""The longest transform, whose matrix has 2^26 elements."""
BITS = 96
"""Binary digits behind the point, of which rounding may lose a few."""
PI = 0x3243F6A8885A308D313198A2E0370734 >> (124 - BITS)
"""Pi in units of 2^-96; its first digits are 3.243F6A88 in base 16."""


def cosines(count: int) -> Array:
    """cos(2 pi k / count) for each k, rounded once: by Taylor's series, in integers.

    Those of NumPy differ from processor to processor, and a library's bytes must not.
    """
    found = np.empty(count)
    for k in range(count):
        # To the first eighth: by symmetry in the circle's halves and quarters, in units of 1 / (8 count).
        place = min(8 * k, 8 * count - 8 * k)
        negative = place > 2 * count
        place = 4 * count - place if negative else place
        swapped = place > count
        value = _series(2 * count - place if swapped else place, 8 * count, odd=swapped)
        found[k] = -value if negative else value
    return found


def _series(numerator: int, denominator: int, *, odd: bool) -> float:
    """The sine if `odd`, or else the cosine, of 2 pi numerator / denominator, at most pi / 4."""
    angle = 2 * PI * numerator // denominator
    square = angle * angle >> BITS
    term = angle if odd else 1 << BITS
    total, factor = term, 1 if odd else 0
    while term:
        term = -(term * square >> BITS) // ((factor + 1) * (factor + 2))
        factor += 2
        total += term
    return total / (1 << BITS)


def _waves(rows: int, columns: int, length: int) -> tuple[Array, Array]:
    """Cos and sin of 2 pi row column / length."""
    table = cosines(4 * length)
    steps = 4 * (np.outer(np.arange(rows), np.arange(columns)) % length)
    return table[steps], table[(steps - length) % (4 * length)]


def forward(rows: int, length: int, columns: int, *, complex_too: bool, inverse: bool) -> Array:
    """[rows x parts, columns x 2]: numbers, each of one part or two, by the transform's matrix."""
    cosine, sine = _waves(rows, columns, length)
    if inverse:
        cosine, sine = cosine / length, -sine / length
    real_part = np.stack([cosine, -sine], axis=-1)
    if not complex_too:
        return real_part.reshape(rows, 2 * columns)
    both_parts = np.stack([real_part, np.stack([sine, cosine], axis=-1)], axis=1)
    return both_parts.reshape(2 * rows, 2 * columns)


def backward(rows: int, length: int) -> Array:
    """[rows x 2, length]: real numbers from the first half of their transform."""
    cosine, sine = _waves(rows, length, length)
    alone = (np.arange(rows) == 0) | (2 * np.arange(rows) == length)
    weight = np.where(alone, 1.0, 2.0)[:, None] / length
    return np.stack([cosine * weight, -sine * weight], axis=1).reshape(2 * rows, length)


def _dft(node: Node) -> Tensor:
    x = node.given(0)
    real(node, x)
    rank, parts = len(x.shape), x.shape[-1]
    newer = node.opset >= AXIS_OPSET
    (axis,) = (integers(node, 2, "axis") or (-2,)) if newer else (node.attribute("axis", 1),)
    axis = axis_of(node, axis, rank)
    inverse, half = bool(node.attribute("inverse", 0)), bool(node.attribute("onesided", 0))
    if axis == rank - 1 or parts not in (1, 2) or (half and parts == 1 + (not inverse)):
        raise node.refuse(f"axis {axis} of a tensor of shape {list(x.shape)}, onesided = {int(half)}")
    given = x.shape[axis]
    (length,) = integers(node, 1, "dft_length") or (2 * (given - 1) if half and inverse else given,)
    columns = length // 2 + 1 if half and not inverse else length
    if not 0 < length <= MOST:
        raise node.refuse(f"a transform of length {length}; at most {MOST} are supported")
    rows = min(given, length)
    if half and inverse:
        rows = min(given, length // 2 + 1)
        matrix, result = backward(rows, length), 1
    else:
        matrix = forward(rows, length, columns, complex_too=parts > 1, inverse=inverse)
        result = 2
    places = (*(a for a in range(rank - 1) if a != axis), axis, rank - 1)
    moved = transposed(node, x, places)
    outer = moved.shape[:-2]
    if rows < given:
        moved = taken(node, moved, rank - 2, np.arange(rows))
    flat = reshaped(node, moved, (*outer, rows * parts))
    y = multiplied(node, flat, node.constant(matrix))
    y = reshaped(node, y, (*outer, columns, result))
    return transposed(node, y, tuple(places.index(a) for a in range(rank)))


def _stft(node: Node) -> Tensor:
    """Frames of a real signal, under a window, each transformed."""
    x, step = node.given(0), int(node.known(1, "frame_step").ravel()[0])
    real(node, x)
    windowed = len(node.inputs) > 2 and node.inputs[2] is not None  # noqa: PLR2004 - the window
    if x.shape[2:] not in ((), (1,)) or step < 1:
        raise node.refuse(f"a signal of shape {list(x.shape)} in steps of {step}; it must be real")
    (length,) = integers(node, 3, "frame_length") or (node.given(2).shape if windowed else (0,))
    batch, samples = x.shape[:2]
    if not 0 < length <= min(samples, MOST):
        raise node.refuse(f"frames of {length} of {samples} samples; at most {MOST} are supported")
    frames = (samples - length) // step + 1
    places = (np.arange(frames)[:, None] * step + np.arange(length)).ravel()
    cut = reshaped(
        node, taken(node, reshaped(node, x, (batch, samples)), 1, places), (batch, frames, length)
    )
    if windowed:
        cut = both(node, "mul", cut, node.given(2))
    columns = length // 2 + 1 if node.attribute("onesided", 1) else length
    matrix = forward(length, length, columns, complex_too=False, inverse=False)
    return reshaped(node, multiplied(node, cut, node.constant(matrix)), (batch, frames, columns, 2))


ONNX = {"DFT": _dft, "STFT": _stft}
