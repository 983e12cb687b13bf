"""Winograd's transforms of vectors, along one axis of a tile, with no product done twice.

Rows of B^T for points p and -p differ in the sign of every other entry, and so do columns of
A^T (`kernels.winograd`): a pair shares its even and its odd part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kernels.winograd import TRANSFORMS


def transform_data(b: Any, m: int, values: Sequence[Any]) -> list[Any]:
    """B^T applied to a column of vectors; None stands for zeros, among the results too."""
    matrix = TRANSFORMS[m].data
    found = [_sum(b, zip(matrix[0], values, strict=True))]
    for row in matrix[1:-1:2]:
        terms = list(zip(row, values, strict=True))
        even, odd = _sum(b, terms[::2]), _sum(b, terms[1::2])
        found += [_sum(b, ((1, even), (1, odd))), _sum(b, ((1, even), (-1, odd)))]
    return [*found, _sum(b, zip(matrix[-1], values, strict=True))]


def transform_results(b: Any, m: int, values: Sequence[Any], count: int) -> list[Any]:
    """The first `count` rows of A^T applied to a column of vectors."""
    first, last = values[0], values[-1]
    pairs = list(zip(values[1:-1:2], values[2:-1:2], strict=True))
    sums = [b.let(p + n) for p, n in pairs]
    differences = [b.let(p - n) for p, n in pairs]
    found = []
    for number, row in enumerate(TRANSFORMS[m].results[:count]):
        middle = differences if number % 2 else sums
        terms = zip((row[0], *row[1:-1:2], row[-1]), (first, *middle, last), strict=True)
        found.append(_sum(b, terms))
    return found


def _sum(b: Any, terms: Iterable[tuple[float, Any]]) -> Any:
    """The sum of factors times vectors, those of factor 1 first; None if all are zeros."""
    kept = sorted(((f, v) for f, v in terms if f and v is not None), key=lambda term: term[0] != 1)
    total = None
    for factor, value in kept:
        if total is None:
            total = value if factor == 1 else b.constant(factor, b.lanes(value)) * value
        elif abs(factor) == 1:
            total = total + value if factor == 1 else total - value
        else:
            total = b.fma(b.constant(factor, b.lanes(value)), value, total)
    return total if total is None else b.let(total)
