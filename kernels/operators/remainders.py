"""What is left of a floating-point number after division by another, without error."""

from __future__ import annotations

from typing import Any

from kernels.operators.elementary import INTEGRAL, SMALLEST_NORMAL, absolute, with_sign_of

ROUNDS = 278
"""Binary digits of the largest quotient: exponents differ by at most 254 + 23."""


def remainder(b: Any, x: Any, y: Any, *, truncated: bool) -> Any:
    """X - q y for an integer q, with the sign of y or, `truncated`, of x, as C's fmod.

    By long division of significands, digit by digit, so that it is exact; with the sign of y
    there may be one addition more, which rounds. NaN where x is infinite, y is 0, or either is NaN.
    """
    lanes = b.lanes(x)
    zero, none = b.integer(0, lanes), b.constant(0.0, lanes)
    size, divisor = absolute(b, x), absolute(b, y)
    (rest, high), (factor, low) = _parts(b, size), _parts(b, divisor)
    apart = b.let(high - low)
    state = b.registers([lanes], "int32")
    state[0] = rest
    with b.loop(0, ROUNDS) as step:
        left = b.let(apart - b.splat(b.cast(b.index(step), "int32"), lanes))
        before = b.let(state[0])
        after = b.let(b.select(before < factor, before, before - factor))
        moved = b.let(b.select(left > zero, after + after, after))
        state[0] = b.select(left < zero, before, moved)
    found = b.let(b.cast(b.let(state[0]), "float32"))
    scale = b.let(low - b.integer(150, lanes))
    half = b.let(scale >> b.integer(1, lanes))
    # In two factors, of which the second may make the result subnormal, but not round it.
    for part in (half, b.let(scale - half)):
        found = b.let(found * b.as_float(b.let((part + b.integer(127, lanes)) << b.integer(23, lanes))))
    found = b.let(b.select(apart < zero, x, with_sign_of(b, found, x)))
    if not truncated:
        sum_of = b.let(found + y)
        other = b.select(found < none, y > none, y < none)
        moved = b.let(b.select(other, sum_of, found))
        found = b.let(b.select(b.equal(found, none), with_sign_of(b, none, y), moved))
    undefined = b.constant(float("nan"), lanes)
    finite = b.let(b.select(size < b.constant(float("inf"), lanes), found, undefined))
    found = b.let(b.select(b.equal(divisor, none), undefined, finite))
    return b.let(b.select(b.differ(y, y), y, found))


def _parts(b: Any, size: Any) -> tuple[Any, Any]:
    """(m, e) with size = m 2^(e - 150), m of 24 bits; subnormal numbers are multiplied by 2^23 first."""
    lanes = b.lanes(size)
    tiny = size < b.constant(SMALLEST_NORMAL, lanes)
    bits = b.let(b.as_int(b.let(b.select(tiny, size * b.constant(INTEGRAL, lanes), size))))
    offset = b.select(tiny, b.integer(23, lanes), b.integer(0, lanes))
    exponent = b.let((bits >> b.integer(23, lanes)) - offset)
    return b.let((bits & b.integer(0x7FFFFF, lanes)) | b.integer(0x800000, lanes)), exponent
