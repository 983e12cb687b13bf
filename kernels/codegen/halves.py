"""float16 and bfloat16 as bits: widened to float32 exactly, and rounded from it to nearest, ties to even.

Integer arithmetic on vectors alone does it, so that every target gives the same bits and none
needs a compiler's helper functions; no subnormal float32 takes part, which ARMv7's vectors flush.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kernels.program import ElementType

SIGN = 0x8000
REST = 0x7FFFFFFF
"""Of a float32, all but its sign."""
INFINITY = 0x7F800000
QUIET = 0x7FC00000
REBIASED = (127 - 15) << 23
"""What lies between the exponents' biases of float16 and float32."""
LEAST_NORMAL = 113 << 23
"""2^-14, the least normal float16, as the bits of a float32."""
OVERFLOWING = 143 << 23
"""2^16, from which on a float16 is infinite; what rounds up to it arrives there by its carry."""
RENORMALISING = 126 << 23
"""0.5, whose last place is 2^-24, the unit of float16's subnormal numbers."""


def widen_float16(b: Any, bits: Any) -> Any:
    """Every float16 is a normal float32, or zero, infinite or NaN."""
    lanes = b.lanes(bits)

    def word(value: int) -> Any:
        return b.integer(value, lanes)

    wide = b.let(b.cast(bits, "int32"))
    shifted = b.let((wide & word(0x7FFF)) << word(13))
    normal = shifted + word(REBIASED)
    endless = normal + word(REBIASED)
    subnormal = b.as_float(shifted + word(LEAST_NORMAL)) - b.as_float(word(LEAST_NORMAL))
    size = b.select(shifted < word(1 << 23), b.as_int(b.let(subnormal)), normal)
    size = b.select(shifted < word(0x7C00 << 13), size, endless)
    return b.as_float(b.let(size | ((wide & word(SIGN)) << word(16))))


def narrow_float16(b: Any, value: Any) -> Any:
    """NaN becomes a quiet one of the same sign."""
    lanes = b.lanes(value)

    def word(number: int) -> Any:
        return b.integer(number, lanes)

    bits = b.let(b.as_int(value))
    size = b.let(bits & word(REST))
    finite = b.let(b.select(size < word(OVERFLOWING), size, word(OVERFLOWING)))
    odd = (finite >> word(13)) & word(1)
    normal = (finite - word(REBIASED) + word(0xFFF) + odd) >> word(13)
    aligned = b.as_float(finite) + b.as_float(word(RENORMALISING))
    subnormal = b.as_int(b.let(aligned)) - word(RENORMALISING)
    rounded = b.select(finite < word(LEAST_NORMAL), subnormal, normal)
    rounded = b.select(size > word(INFINITY), word(0x7E00), rounded)
    return b.cast(b.let(rounded | ((bits >> word(16)) & word(SIGN))), "uint16")


def widen_bfloat16(b: Any, bits: Any) -> Any:
    """It is the upper half of a float32."""
    return b.as_float(b.let(b.cast(bits, "int32") << b.integer(16, b.lanes(bits))))


def narrow_bfloat16(b: Any, value: Any) -> Any:
    """NaN becomes a quiet one of the same sign."""
    lanes = b.lanes(value)

    def word(number: int) -> Any:
        return b.integer(number, lanes)

    bits = b.let(b.as_int(value))
    size = bits & word(REST)
    size = b.let(b.select(size > word(INFINITY), word(QUIET), size))
    rounded = (size + word(0x7FFF) + ((size >> word(16)) & word(1))) >> word(16)
    return b.cast(b.let(rounded | ((bits >> word(16)) & word(SIGN))), "uint16")


WIDEN: Mapping[ElementType, Callable[[Any, Any], Any]] = {
    ElementType.FLOAT16: widen_float16,
    ElementType.BFLOAT16: widen_bfloat16,
}
NARROW: Mapping[ElementType, Callable[[Any, Any], Any]] = {
    ElementType.FLOAT16: narrow_float16,
    ElementType.BFLOAT16: narrow_bfloat16,
}
