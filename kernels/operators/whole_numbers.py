"""Division of integers, without a case that is undefined and without a compiler's helper functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.operators.base import Array


def quotient(b: Any, x: Any, y: Any) -> Any:
    """X / y rounded towards zero; 0 where y is 0, and the least number over -1 wraps to itself.

    Processors trap at both, so that they divide by 1 instead.
    """
    scalar = b.scalar(x)
    if scalar in NARROW:
        wide = quotient(b, b.let(b.cast(x, "int32")), b.let(b.cast(y, "int32")))
        return b.cast(b.let(wide), scalar)
    zero, one = b.like(0, x), b.like(1, x)
    minus = b.like(-1, x)
    safe = b.let(b.select(b.equal(y, zero), one, b.select(b.equal(y, minus), one, y)))
    found = b.let(b.whole_quotient(x, safe) if b.divides else _by_bits(b, x, safe))
    found = b.let(b.select(b.equal(y, minus), b.difference(zero, x), found))
    return b.select(b.equal(y, zero), zero, found)


def remainder(b: Any, x: Any, y: Any, *, truncated: bool) -> Any:
    """What is left of x, with the sign of y or, `truncated`, of x; 0 where y is 0."""
    zero = b.like(0, x)
    left = b.let(b.difference(x, b.let(b.product(b.let(quotient(b, x, y)), y))))
    if not truncated and b.is_signed(x):
        moved = b.select(b.equal(left, zero), left, b.sum(left, y))
        opposite = b.select(
            y < zero, b.select(left < zero, left, moved), b.select(left < zero, moved, left)
        )
        left = b.let(opposite)
    return b.select(b.equal(y, zero), zero, left)


def power(b: Any, x: Any, y: Any) -> Any:
    """X to the power of y, wrapping; cut towards zero where y is below 0, and 0 for 0 then.

    By squares, one for each binary digit of y.
    """
    lanes, scalar = b.lanes(x), b.scalar(x)
    zero, one = b.like(0, x), b.like(1, x)
    state = b.registers([lanes] * 3, scalar)
    state[0], state[1], state[2] = one, x, y
    with b.loop(0, int(scalar.lstrip("uint"))):
        total, factor, left = (b.let(state[number]) for number in range(3))
        odd = b.equal(b.let(left & one), one)
        state[0] = b.select(odd, b.let(b.product(total, factor)), total)
        state[1] = b.product(factor, factor)
        state[2] = left >> one
    found = b.let(state[0])
    if not b.is_signed(x):
        return found
    minus = b.like(-1, x)
    sign = b.select(b.equal(b.let(y & one), one), minus, one)
    inverse = b.select(b.equal(x, one), one, b.select(b.equal(x, minus), sign, zero))
    return b.select(y < zero, b.let(inverse), found)


def exact_power(x: Array, y: Array) -> Array:
    """What `power` gives, by NumPy."""
    with np.errstate(all="ignore"):
        found = np.power(x, np.where(y < 0, 0, y).astype(x.dtype))
        inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 != 0, -1, 1), 0))
        return np.where(y < 0, inverse, found).astype(x.dtype)


NARROW = ("int8", "uint8")


def _by_bits(b: Any, x: Any, y: Any) -> Any:
    """For processors that may have no instruction for it."""
    zero = b.like(0, x)
    scalar = b.scalar(x)
    unsigned = f"u{scalar}"
    dividend, divisor = (
        b.let(b.cast(b.select(v < zero, b.difference(zero, v), v), unsigned)) for v in (x, y)
    )
    lanes, one = b.lanes(x), b.like(1, dividend)
    bits = int(scalar.removeprefix("int"))
    state = b.registers([lanes, lanes], unsigned)
    state[0] = state[1] = b.like(0, dividend)
    with b.loop(0, bits) as step:
        place = b.like(bits - 1, dividend) - b.splat(b.cast(step, unsigned), lanes)
        rest = b.let((state[1] << one) | ((dividend >> place) & one))
        fits = rest >= divisor
        state[0] = (state[0] << one) | b.select(fits, one, b.like(0, dividend))
        state[1] = b.select(fits, rest - divisor, rest)
    size = b.let(b.cast(state[0], scalar))
    negative = b.let(b.difference(zero, size))
    return b.select(x < zero, b.select(y < zero, size, negative), b.select(y < zero, negative, size))


def exact_quotient(x: Array, y: Array) -> Array:
    """What `quotient` gives, by NumPy."""
    with np.errstate(all="ignore"):
        floor = np.where(y == 0, 0, x // np.where(y == 0, 1, y)).astype(x.dtype)
        inexact = (floor * y != x) & (y != 0)
        return np.asarray(floor + (inexact & ((x < 0) != (y < 0))).astype(x.dtype))


def exact_remainder(x: Array, y: Array, *, truncated: bool) -> Array:
    """What `remainder` gives, by NumPy."""
    with np.errstate(all="ignore"):
        found = (np.fmod if truncated else np.mod)(x, np.where(y == 0, 1, y))
        return np.where(y == 0, 0, found).astype(x.dtype)
