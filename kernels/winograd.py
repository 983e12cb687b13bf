"""Winograd's minimal filtering: the matrices of F(m x m, 3 x 3), and the transform of weights.

m x m results of a 3 x 3 window, over a tile d of (m + 2) x (m + 2) elements, are
y = A^T [(G g G^T) * (B^T d B)] A, where * is the product element by element (Lavin and Gray,
"Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1). It takes
(m + 2)^2 multiplications instead of 9 m^2, and more roundings.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

TAPS = 3
"""Of the window, along each axis."""

Matrix = tuple[tuple[float, ...], ...]


class Transforms(msgspec.Struct, frozen=True, kw_only=True):
    """The three matrices, all but G of whole numbers: `data` B^T, `weights` G, `results` A^T.

    The first and the last of the m + 2 points are 0 and infinity; those between are pairs
    (p, -p), so that their rows of B^T, and their columns of A^T, differ in the sign of every
    other entry alone.
    """

    data: Matrix
    weights: Matrix
    results: Matrix

    @property
    def roundings(self) -> int:
        """Of one element, in the transforms of the tile and of its results along both axes.

        A sum of n products takes at most n in any order, fused or apart.
        """
        longest = (max(np.count_nonzero(row) for row in rows) for rows in (self.data, self.results))
        return 2 * int(sum(longest))


TRANSFORMS = {
    2: Transforms(
        data=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        weights=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        results=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: Transforms(
        data=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        weights=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        results=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}
"""By m: the points 0, 1, -1 and infinity, and beside these 2 and -2 (Lavin and Gray, 4.1 and 4.2)."""


def along(matrix: Matrix, array: NDArray[Any], axis: int) -> NDArray[Any]:
    """The matrix applied along an axis, in float64, by sums from the first term on.

    Multiplications and additions of whole arrays are rounded alike on every processor,
    which matrix products are not.
    """
    lines = np.moveaxis(array.astype(np.float64), axis, 0)
    found = []
    for row in matrix:
        total = np.zeros(lines.shape[1:])
        for factor, line in zip(row, lines, strict=True):
            if factor:
                total = total + factor * line
        found.append(total)
    return np.moveaxis(np.stack(found), 0, axis)


def transformed(weights: NDArray[Any], m: int) -> NDArray[Any]:
    """G g G^T of weights [3, 3, channels, filters], rounded once: [(m + 2)^2, channels, filters]."""
    matrix = TRANSFORMS[m].weights
    whole = along(matrix, along(matrix, weights, 0), 1)
    return whole.reshape(-1, *weights.shape[2:]).astype(weights.dtype)
