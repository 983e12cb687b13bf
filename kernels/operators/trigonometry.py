"""Trigonometric and hyperbolic functions and their inverses, for every finite float32.

Like those of `elementary.py`: polynomials by Remez's algorithm in 40 digits, rounded to
float32, highest degree first, and errors that hold over all 2^32 arguments.
"""

from __future__ import annotations

from typing import Any

from kernels.operators.elementary import (
    absolute,
    clamped,
    exp,
    log,
    polynomial,
    residue,
    with_sign_of,
)

TWO_OVER_PI = (
    0x0000000A,
    0x2F9836E4,
    0xE441529F,
    0xC2757D1F,
    0x534DDC0D,
    0xB6295993,
    0xC439041F,
    0xE5163ABD,
)
"""28 zeros and the first 228 binary digits of 2 / pi."""
PI_2_HIGH, PI_2_LOW = 1.5707963705062866, -4.371138828673793e-08
PI_4_HIGH, PI_4_LOW = 0.7853981852531433, -2.1855694143368964e-08
PI_HIGH, PI_LOW = 3.1415927410125732, -8.742277657347586e-08
LN_2 = 0.6931471805599453
SIN_TERMS = (2.7180840334040113e-06, -0.0001983930851565674, 0.008333329111337662, -0.1666666716337204)
"""(sin(r) - r) / r^3 in r^2 on |r| <= pi / 4; the relative error of sin is below 3.7e-9."""
COS_TERMS = (2.4432783902739175e-05, -0.0013887312961742282, 0.04166664555668831)
"""(cos(r) - 1 + r^2 / 2) / r^4 in r^2, likewise; below 1.5e-10."""
ASIN_TERMS = (
    0.037529390305280685,
    0.014429842121899128,
    0.03180990740656853,
    0.044516708701848984,
    0.07500505447387695,
    0.16666659712791443,
)
"""(asin(x) - x) / x^3 in x^2 on |x| <= 1/2; the relative error of asin is below 9e-10."""
ATAN_TERMS = (
    -0.060759205371141434,
    0.10592947900295258,
    -0.142434224486351,
    0.19998465478420258,
    -0.33333316445350647,
)
"""(atan(x) - x) / x^3 in x^2 on |x| <= tan(pi / 8); the relative error of atan is below 3.3e-9."""
TAN_PI_8, TAN_3_PI_8 = 0.41421356237309503, 2.414213562373095
SINH_TERMS = (2.8169513370812638e-06, 0.0001983615948120132, 0.008333349600434303, 0.1666666716337204)
"""(sinh(x) - x) / x^3 in x^2 on |x| <= 1; the relative error of sinh is below 5.3e-9."""
ASINH_TERMS = (
    -0.00039121732697822154,
    0.0024118481669574976,
    -0.007045773323625326,
    0.013609861023724079,
    -0.021007275208830833,
    0.030065806582570076,
    -0.04460018873214722,
    0.07499712705612183,
    -0.16666659712791443,
)
"""(asinh(x) - x) / x^3 in x^2 on |x| <= 1; the relative error of asinh is below 5.4e-9."""
ATANH_TERMS = (
    0.17594215273857117,
    0.024522241204977036,
    0.1028267964720726,
    0.10967183113098145,
    0.14294852316379547,
    0.19999727606773376,
    0.3333333730697632,
)
"""(atanh(x) - x) / x^3 in x^2 on |x| <= 1/2; the relative error of atanh is below 2.8e-9."""
ACOSH_TERMS = (
    0.00014324528456199914,
    -0.0006243741372600198,
    0.001875809277407825,
    -0.005576656199991703,
    0.018749723210930824,
    -0.0833333283662796,
)
"""(acosh(1 + u) / sqrt(2 u) - 1) / u on 0 <= u <= 1/2; the relative error of acosh is below 1.1e-9."""
HUGE = 2.0**13
"""From here on the root of x^2 + 1, or x^2 - 1, is x to less than a unit of their sum's logarithm."""


def sin(b: Any, x: Any) -> Any:
    """Sin x within 1 unit in the last place; NaN for infinities. Zeros keep their sign."""
    quadrant, sine, cosine = _reduced(b, x)
    return _wave(b, x, quadrant, (sine, cosine), odd=True)


def cos(b: Any, x: Any) -> Any:
    """Cos x within 1 unit in the last place; NaN for infinities."""
    quadrant, sine, cosine = _reduced(b, x)
    return _wave(b, x, b.let(quadrant + b.integer(1, b.lanes(x))), (sine, cosine), odd=False)


def tan(b: Any, x: Any) -> Any:
    """Tan x within 3 units in the last place; NaN for infinities. Zeros keep their sign."""
    lanes = b.lanes(x)
    quadrant, sine, cosine = _reduced(b, x)
    crossed = b.equal(quadrant & b.integer(1, lanes), b.integer(1, lanes))
    above = b.let(b.select(crossed, b.constant(0.0, lanes) - cosine, sine))
    below = b.let(b.select(crossed, sine, cosine))
    value = b.let(above / below)
    sign = b.as_int(x) & b.integer(-0x80000000, lanes)
    return b.let(b.as_float(b.as_int(_finite_only(b, x, value)) ^ sign))


def _wave(b: Any, x: Any, quadrant: Any, parts: tuple[Any, Any], *, odd: bool) -> Any:
    """What sin is in a quadrant: sine or cosine, in the second half turned over; `odd`: as x is too."""
    lanes = b.lanes(x)
    sine, cosine = parts
    one = b.integer(1, lanes)
    value = b.let(b.select(b.equal(quadrant & one, one), cosine, sine))
    sign = (quadrant & b.integer(2, lanes)) << b.integer(30, lanes)
    if odd:
        sign = sign ^ (b.as_int(x) & b.integer(-0x80000000, lanes))
    return b.let(b.as_float(b.as_int(_finite_only(b, x, value)) ^ sign))


def _finite_only(b: Any, x: Any, value: Any) -> Any:
    """The value, or NaN where x is no finite number."""
    lanes = b.lanes(x)
    return b.let(b.select(absolute(b, x) < b.constant(float("inf"), lanes), value, x - x))


def _reduced(b: Any, x: Any) -> tuple[Any, Any, Any]:
    """The quadrant q of |x| = q pi / 2 + r, and sin r and cos r, |r| <= pi / 4.

    By Payne and Hanek, "Radian reduction for trigonometric functions", ACM SIGNUM Newsletter
    18(1), 1983: |x| is an integer m of 24 bits times 2^s, of whose product with 2 / pi only the
    digits count that are worth less than 4 quadrants; digits that give multiples of 8 are left
    out. 96 digits of 2 / pi, from the place on that the exponent says, leave an error below
    2^-68, where no float32 is nearer than 2^-31 to a multiple of pi / 2 in proportion (Muller
    et al., "Handbook of Floating-Point Arithmetic", 2nd ed., 2018, section 10.2). All in integers,
    so exact; and r has a second part, for what rounding it loses.
    """
    lanes = b.lanes(x)
    size = absolute(b, x)
    bits = b.let(b.as_int(size))
    first, second, third = _digits(b, bits)
    mask = b.integer(0x7FFFFF, lanes)
    significand = b.let(b.cast(b.let((bits & mask) | b.integer(0x800000, lanes)), "int64"))
    high = b.let(b.cast(significand * b.cast(first, "int64"), "int32") & b.integer(0x3FFFFFFF, lanes))
    shift = b.constant(32, lanes, "int64")
    low = b.let((significand * b.cast(third, "int64")) >> shift)
    total = b.let((b.cast(high, "int64") << shift) + significand * b.cast(second, "int64") + low)
    upper = b.let(b.cast(b.let(total >> shift), "int32"))
    lower = b.let(b.cast(total, "int32"))
    # The total is in units of 2^-60 quadrants.
    quadrant = b.let((upper + b.integer(1 << 27, lanes)) >> b.integer(28, lanes))
    rest = b.let(upper - (quadrant << b.integer(28, lanes)))
    # In three parts without error: units of 2^-23, 2^-47 and 2^-60.
    coarse = b.cast(b.let(rest >> b.integer(5, lanes)), "float32") * b.constant(2.0**-23, lanes)
    upper_of_lower = (lower >> b.integer(13, lanes)) & b.integer(0x7FFFF, lanes)
    middle = b.let(((rest & b.integer(31, lanes)) << b.integer(19, lanes)) | upper_of_lower)
    coarse = b.let(coarse)
    middle = b.let(b.cast(middle, "float32") * b.constant(2.0**-47, lanes))
    fine = b.cast(b.let(lower & b.integer(0x1FFF, lanes)), "float32") * b.constant(2.0**-60, lanes)
    turn = b.let(coarse + middle)
    lost = b.let(b.let(middle - b.let(turn - coarse)) + fine)
    half_pi = b.constant(PI_2_HIGH, lanes)
    r = b.let(turn * half_pi)
    zero = b.constant(0.0, lanes)
    error = b.let(zero - residue(b, turn, half_pi, r))
    tail = b.let(b.fma(lost, half_pi, b.fma(turn, b.constant(PI_2_LOW, lanes), error)))
    small = size < b.constant(PI_4_HIGH, lanes)
    quadrant = b.let(b.select(small, b.integer(0, lanes), quadrant))
    r = b.let(b.select(small, size, r))
    tail = b.let(b.select(small, zero, tail))
    return quadrant, *_sine_and_cosine(b, r, tail)


def _digits(b: Any, bits: Any) -> tuple[Any, Any, Any]:
    """96 digits of 2 / pi, in three unsigned words, for a number of these bits from 1/2 on.

    With the exponent's field e, so that the number is m 2^(e - 150), they begin e - 126 digits
    into `TWO_OVER_PI`; words are moved forward by 4, 2 and 1, and then digits by up to 31.
    """
    lanes = b.lanes(bits)
    place = b.let((bits >> b.integer(23, lanes)) - b.integer(126, lanes))
    words = [b.constant(word, lanes, "uint32") for word in TWO_OVER_PI]
    for step, needed in ((4, 7), (2, 5), (1, 4)):
        moved = place & b.integer(32 * step, lanes)
        there = b.equal(b.let(moved), b.integer(0, lanes))
        words = [
            b.let(b.select(there, words[n], words[n + step])) if n + step < len(words) else words[n]
            for n in range(needed)
        ]
    one = b.constant(1, lanes, "uint32")
    left = b.let(b.cast(b.let(place & b.integer(31, lanes)), "uint32"))
    right = b.let(b.constant(31, lanes, "uint32") - left)
    first, second, third = (
        b.let((words[n] << left) | b.let((words[n + 1] >> one) >> right)) for n in range(3)
    )
    return first, second, third


def _sine_and_cosine(b: Any, r: Any, tail: Any) -> tuple[Any, Any]:
    """Sin and cos of r + tail, |r| <= pi / 4 and the tail below half a unit in r's last place."""
    lanes = b.lanes(r)
    one = b.constant(1.0, lanes)
    square = b.let(r * r)
    half = b.let(square * b.constant(0.5, lanes))
    cube = b.let(square * r)
    sine = b.fma(polynomial(b, square, SIN_TERMS), cube, b.let(tail * b.let(one - half)))
    sine = b.let(r + b.let(sine))
    near = b.let(one - half)
    lost = b.let(b.let(one - near) - half)
    cosine = b.fma(polynomial(b, square, COS_TERMS), b.let(square * square), lost - b.let(r * tail))
    return sine, b.let(near + b.let(cosine))


def asin(b: Any, x: Any) -> Any:
    """Asin x within 3 units in the last place; NaN beyond 1. Zeros keep their sign.

    Beyond 1/2 it is pi / 2 - 2 asin(sqrt((1 - |x|) / 2)).
    """
    middle, arc = _arc(b, x)
    lanes = b.lanes(x)
    two = b.constant(2.0, lanes)
    large = b.constant(PI_2_HIGH, lanes) - b.let(two * arc - b.constant(PI_2_LOW, lanes))
    return with_sign_of(b, b.let(b.select(middle, arc, b.let(large))), x)


def _arc(b: Any, x: Any) -> tuple[Any, Any]:
    """Whether |x| is at most 1/2, and asin of |x|, or else of sqrt((1 - |x|) / 2)."""
    lanes = b.lanes(x)
    half = b.constant(0.5, lanes)
    size = absolute(b, x)
    middle = size <= half
    square = b.let(b.select(middle, size * size, (b.constant(1.0, lanes) - size) * half))
    root = b.let(b.select(middle, size, b.sqrt(square)))
    arc = b.fma(polynomial(b, square, ASIN_TERMS), b.let(square * root), root)
    return middle, b.let(arc)


def acos(b: Any, x: Any) -> Any:
    """Acos x within 2 units in the last place; NaN beyond 1."""
    middle, arc = _arc(b, x)
    lanes = b.lanes(x)
    two, zero = b.constant(2.0, lanes), b.constant(0.0, lanes)
    negative = x < zero
    signed = b.let(b.select(negative, zero - arc, arc))
    centre = b.constant(PI_2_HIGH, lanes) - b.let(signed - b.constant(PI_2_LOW, lanes))
    double = b.let(two * arc)
    far = b.constant(PI_HIGH, lanes) - b.let(double - b.constant(PI_LOW, lanes))
    return b.let(b.select(middle, centre, b.let(b.select(negative, far, double))))


def atan(b: Any, x: Any) -> Any:
    """Atan x within 2 units in the last place; zeros keep their sign.

    Beyond tan(pi / 8) it is pi / 4 + atan((x - 1) / (x + 1)), beyond tan(3 pi / 8) pi / 2 + atan(-1 / x).
    """
    lanes = b.lanes(x)
    size = absolute(b, x)
    one, zero = b.constant(1.0, lanes), b.constant(0.0, lanes)
    far, near = size > b.constant(TAN_3_PI_8, lanes), size > b.constant(TAN_PI_8, lanes)
    above = b.let(b.select(far, zero - one, b.select(near, size - one, size)))
    below = b.let(b.select(far, size, b.select(near, size + one, one)))
    t = b.let(above / below)
    square = b.let(t * t)
    bend = polynomial(b, square, ATAN_TERMS) * b.let(square * t)
    high = b.let(
        b.select(far, b.constant(PI_2_HIGH, lanes), b.select(near, b.constant(PI_4_HIGH, lanes), zero))
    )
    low = b.let(
        b.select(far, b.constant(PI_2_LOW, lanes), b.select(near, b.constant(PI_4_LOW, lanes), zero))
    )
    return with_sign_of(b, b.let(high + b.let(t + b.let(bend + low))), x)


def _half_exp(b: Any, size: Any) -> Any:
    """e^size / 2, where that is finite though e^size may not be: of a number that is not negative."""
    lanes = b.lanes(size)
    limited = clamped(b, size, 0.0, 90.0)
    large = limited > b.constant(64.0, lanes)
    # e^32 is 78962960182680.7; the product's rounding comes to exp's own.
    part = b.let(b.select(large, limited - b.constant(32.0, lanes), limited))
    factor = b.let(b.select(large, b.constant(78962960182680.695 / 2, lanes), b.constant(0.5, lanes)))
    return b.let(exp(b, part) * factor)


def sinh(b: Any, x: Any) -> Any:
    """Sinh x within 2 units in the last place; zeros keep their sign."""
    lanes = b.lanes(x)
    size = absolute(b, x)
    square = b.let(x * x)
    small = b.let(b.fma(polynomial(b, square, SINH_TERMS), b.let(square * size), size))
    half = _half_exp(b, size)
    large = b.let(half - b.constant(0.25, lanes) / half)
    return with_sign_of(b, b.let(b.select(size < b.constant(1.0, lanes), small, large)), x)


def cosh(b: Any, x: Any) -> Any:
    """Cosh x within 2 units in the last place."""
    half = _half_exp(b, absolute(b, x))
    return b.let(half + b.constant(0.25, b.lanes(x)) / half)


def asinh(b: Any, x: Any) -> Any:
    """Asinh x within 3 units in the last place; zeros keep their sign."""
    lanes = b.lanes(x)
    size = absolute(b, x)
    one = b.constant(1.0, lanes)
    square = b.let(x * x)
    small = b.let(b.fma(polynomial(b, square, ASINH_TERMS), b.let(square * size), size))
    large = _log_of_sum(b, size, b.sqrt(b.let(square + one)))
    return with_sign_of(b, b.let(b.select(size < one, small, large)), x)


def _log_of_sum(b: Any, size: Any, root: Any) -> Any:
    """Ln(size + root), where the two are near each other; for huge numbers ln(size) + ln 2."""
    lanes = b.lanes(size)
    huge = size > b.constant(HUGE, lanes)
    value = log(b, b.let(b.select(huge, size, size + root)))
    return b.let(value + b.select(huge, b.constant(LN_2, lanes), b.constant(0.0, lanes)))


def acosh(b: Any, x: Any) -> Any:
    """Acosh x within 3 units in the last place; NaN below 1."""
    lanes = b.lanes(x)
    one, two = b.constant(1.0, lanes), b.constant(2.0, lanes)
    above = b.let(x - one)
    root = b.sqrt(b.let(above + above))
    small = b.let(b.fma(polynomial(b, above, ACOSH_TERMS) * above, root, root))
    large = _log_of_sum(b, x, b.sqrt(b.let(above * b.let(above + two))))
    return b.let(b.select(above <= b.constant(0.5, lanes), small, large))


def atanh(b: Any, x: Any) -> Any:
    """Atanh x within 2 units in the last place; infinite at 1, NaN beyond. Zeros keep their sign."""
    lanes = b.lanes(x)
    size = absolute(b, x)
    one, half = b.constant(1.0, lanes), b.constant(0.5, lanes)
    square = b.let(x * x)
    small = b.let(b.fma(polynomial(b, square, ATANH_TERMS), b.let(square * size), size))
    large = b.let(half * log(b, b.let((one + size) / (one - size))))
    return with_sign_of(b, b.let(b.select(size < half, small, large)), x)
