"""Elementary functions as vectorised polynomials: no libm, the same bits on every target."""

from __future__ import annotations

from typing import Any

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693359375
LN2_LOW = -2.12194440e-4
"""ln 2 in two parts; the first has 9 significant bits, so that its product with an integer
below 2^15 is exact (Cody and Waite, "Software Manual for the Elementary Functions", 1980,
chapter 6)."""
ROUND = 1.5 * 2.0**23
"""Adding and subtracting this rounds a float32 below 2^22 to the nearest integer."""
EXP_SMALLEST = -103.97208
"""Below this, exp rounds to zero in float32: ln(2^-150)."""
EXP_LARGEST = 88.72284
"""Above this, exp overflows float32: ln(2^128)."""
EXP_COEFFICIENTS = (
    1.0 / 5040,
    1.0 / 720,
    1.0 / 120,
    1.0 / 24,
    1.0 / 6,
    0.5,
    1.0,
    1.0,
)
"""Taylor coefficients of exp up to degree 7; on |r| <= ln(2) / 2 the remainder is below
0.35^8 / 8! < 6e-9, a tenth of the unit round-off."""


def exp(b: Any, x: Any) -> Any:
    """e^x on every lane, within 2 units in the last place; NaN is kept.

    x = n ln 2 + r; 2^n is applied in two factors, so that results below the normal range
    are rounded once, and not flushed by us.
    """
    lanes = b.lanes(x)
    x = b.let(x)
    x = b.let(b.select(x < b.constant(EXP_SMALLEST, lanes), b.constant(EXP_SMALLEST, lanes), x))
    x = b.let(b.select(x > b.constant(EXP_LARGEST, lanes), b.constant(EXP_LARGEST, lanes), x))
    shift = b.constant(ROUND, lanes)
    n = b.let(b.fma(x, b.constant(LOG2_E, lanes), shift) - shift)
    r = b.fma(n, b.constant(-LN2_HIGH, lanes), x)
    r = b.let(b.fma(n, b.constant(-LN2_LOW, lanes), r))
    value = b.constant(EXP_COEFFICIENTS[0], lanes)
    for coefficient in EXP_COEFFICIENTS[1:]:
        value = b.fma(value, r, b.constant(coefficient, lanes))
    half = b.let(b.fma(n, b.constant(0.5, lanes), shift) - shift)
    return value * _power_of_two(b, half) * _power_of_two(b, b.let(n - half))


def _power_of_two(b: Any, n: Any) -> Any:
    """2^n for integral n in [-126, 127]: n moved into the exponent's bits."""
    lanes = b.lanes(n)
    bits = b.as_int(b.let(n + b.constant(ROUND + 127.0, lanes)))
    return b.as_float(bits << b.integer(23, lanes))
