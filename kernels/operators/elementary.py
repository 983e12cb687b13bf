"""Elementary functions as vectorised polynomials: no libm, the same bits on every target.

Coefficients are minimax ones, found with Remez's algorithm in 40 digits and rounded to
float32, highest degree first. `tests/emulation/test_functions.py` holds the errors that
the docstrings state, over all 2^32 arguments where a test machine runs the code itself.
"""

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
INTEGRAL = 2.0**23
"""From here on every float32 is an integer."""
SMALLEST_NORMAL = 2.0**-126
EXP_ZERO = -176.0
"""At and below this, exp is zero by both powers of two that it is multiplied by: 2^-127 has no
exponent but zero's. Results round to zero from -104 on, but what underflows in a product costs
x86-64 some 150 cycles, and masks of attention ask for exp(-10000) in every row."""
EXP_LARGEST = 89.0
"""At and above this, exp overflows float32; ln(2^128) is 88.72."""
EXP_TERMS = (0.0013951719738543034, 0.008369598537683487, 0.0416661873459816, 0.16666512191295624, 0.5)
"""(e^r - 1 - r) / r^2 on |r| <= ln(2) / 2; the error of e^r is below 3.4e-9."""
EXPM1_SMALL = 0.34375
LOG_TERMS = (
    0.06746598333120346,
    -0.1167561411857605,
    0.11888160556554794,
    -0.12405595183372498,
    0.14219553768634796,
    -0.16667994856834412,
    0.2000211924314499,
    -0.25000008940696716,
    0.3333331346511841,
)
"""(ln(1 + f) - f + f^2 / 2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]; relative error 7.5e-10."""
TANH_TERMS = (
    -0.0055286334827542305,
    0.020483316853642464,
    -0.05369296669960022,
    0.1333089917898178,
    -0.3333326280117035,
)
"""(tanh(x) - x) / x^3 in x^2 on |x| <= 0.65; the relative error of tanh is below 6.4e-9."""
TANH_SMALL = 0.625
ERF_TERMS = (
    8.215427078539506e-05,
    -0.000810596626251936,
    0.0051977974362671375,
    -0.026858104392886162,
    0.11283672600984573,
    -0.37612631916999817,
    0.12837916612625122,
)
"""erf(x) / x - 1 in x^2 on |x| <= 0.95; error 6e-10."""
ERF_SMALL = 0.921875
ERFC_TERMS = (
    0.00019718139083124697,
    -0.0030556044075638056,
    0.022277075797319412,
    -0.1040373370051384,
    -0.63705974817276,
    -1.1277495622634888,
    -0.00017749764083418995,
)
"""ln(erfc(t)) on [0.9, 4]; the error of erfc is below 1.7e-9."""
ERF_LARGEST = 3.9375
"""From here on erf rounds to 1."""


def polynomial(b: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's scheme, highest degree first; each step is named, lest calls nest."""
    lanes = b.lanes(x)
    value = b.constant(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = b.let(b.fma(value, x, b.constant(coefficient, lanes)))
    return value


def nearest(b: Any, x: Any) -> Any:
    """The nearest integer, ties to even, of lanes below 2^22 in magnitude."""
    shift = b.constant(ROUND, b.lanes(x))
    return b.let(b.let(x + shift) - shift)


def absolute(b: Any, x: Any) -> Any:
    """|x|: the sign bit cleared, NaN kept; of integers the least stays as it is."""
    if not b.is_real(x):
        zero = b.like(0, x)
        return b.select(x < zero, b.difference(zero, x), x)
    return b.let(b.as_float(b.as_int(x) & b.integer(0x7FFFFFFF, b.lanes(x))))


def with_sign_of(b: Any, magnitude: Any, sign: Any) -> Any:
    """`magnitude`, which is not negative, with the sign bit of `sign`."""
    bit = b.as_int(sign) & b.integer(-0x80000000, b.lanes(sign))
    return b.let(b.as_float(b.as_int(magnitude) | bit))


def clamped(b: Any, x: Any, low: float, high: float) -> Any:
    """min(max(x, low), high), NaN kept."""
    lanes = b.lanes(x)
    x = b.let(b.select(x < b.constant(low, lanes), b.constant(low, lanes), x))
    return b.let(b.select(x > b.constant(high, lanes), b.constant(high, lanes), x))


def exp(b: Any, x: Any) -> Any:
    """e^x within 1 unit in the last place where the result is normal; NaN is kept.

    x = n ln 2 + r; 2^n is applied in two factors, so that results below the normal range
    are rounded once, and not flushed by us.
    """
    x = clamped(b, b.let(x), EXP_ZERO, EXP_LARGEST)
    lanes = b.lanes(x)
    n = nearest(b, b.let(x * b.constant(LOG2_E, lanes)))
    r = b.let(b.fma(n, b.constant(-LN2_HIGH, lanes), x))
    r = b.let(b.fma(n, b.constant(-LN2_LOW, lanes), r))
    # 1 + r is kept in two parts (Dekker, 1971), for what it loses is most of the error.
    one = b.constant(1.0, lanes)
    near = b.let(one + r)
    lost = b.let(r - b.let(near - one))
    value = b.let(near + b.fma(polynomial(b, r, EXP_TERMS), b.let(r * r), lost))
    half = nearest(b, b.let(n * b.constant(0.5, lanes)))
    return b.let(value * _power_of_two(b, half) * _power_of_two(b, b.let(n - half)))


def _power_of_two(b: Any, n: Any) -> Any:
    """2^n for integral n in [-126, 127], and 0 for -127: n moved into the exponent's bits."""
    lanes = b.lanes(n)
    bits = b.as_int(b.let(n + b.constant(ROUND + 127.0, lanes)))
    return b.as_float(bits << b.integer(23, lanes))


def expm1(b: Any, x: Any) -> Any:
    """e^x - 1 within 3 units in the last place, without cancellation near zero."""
    x = b.let(x)
    lanes = b.lanes(x)
    small = b.let(b.fma(polynomial(b, x, EXP_TERMS), b.let(x * x), x))
    large = b.let(exp(b, x) - b.constant(1.0, lanes))
    return b.let(b.select(absolute(b, x) < b.constant(EXPM1_SMALL, lanes), small, large))


def log(b: Any, x: Any) -> Any:
    """Ln x within 1 unit in the last place; NaN below zero, minus infinity at zero.

    x = 2^e m with m in [sqrt(1/2), sqrt(2)); subnormal numbers are scaled by 2^23 first.
    """
    x = b.let(x)
    lanes = b.lanes(x)
    tiny = x < b.constant(SMALLEST_NORMAL, lanes)
    scaled = b.let(b.select(tiny, x * b.constant(INTEGRAL, lanes), x))
    offset = b.let(b.select(tiny, b.constant(-23.0, lanes), b.constant(0.0, lanes)))
    # 0x3F3504F3 is sqrt(1/2): subtracting it makes the exponent's field that of x / m.
    bits = b.let(b.as_int(scaled) - b.integer(0x3F3504F3, lanes))
    exponent = b.let(bits >> b.integer(23, lanes))
    mantissa = b.let(b.as_float(b.as_int(scaled) - (exponent << b.integer(23, lanes))))
    e = b.let(_small_to_float(b, exponent) + offset)
    f = b.let(mantissa - b.constant(1.0, lanes))
    square = b.let(f * f)
    value = b.fma(b.let(square * f), polynomial(b, f, LOG_TERMS), e * b.constant(LN2_LOW, lanes))
    value = b.let(b.fma(square, b.constant(-0.5, lanes), value) + f)
    value = b.let(b.fma(e, b.constant(LN2_HIGH, lanes), value))
    zero, infinity = b.constant(0.0, lanes), b.constant(float("inf"), lanes)
    value = b.let(b.select(x < infinity, value, x))  # infinity and NaN are their own logarithms
    value = b.let(b.select(x < zero, b.constant(float("nan"), lanes), value))
    return b.let(b.select(x == zero, b.constant(-float("inf"), lanes), value))


def softplus(b: Any, x: Any) -> Any:
    """Ln(1 + e^x) within 3 units in the last place: max(x, 0) + ln(1 + e^-|x|), which cannot overflow.

    What 1 + e^-|x| loses in rounding is put back, to first order (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2nd ed., 2002, section 1.14).
    """
    x = b.let(x)
    lanes = b.lanes(x)
    zero = b.constant(0.0, lanes)
    _, total, lost = _one_and_power(b, x)
    rest = b.let(log(b, total) + lost / total)
    return b.let(b.select(x < zero, zero, x) + rest)


def _one_and_power(b: Any, x: Any) -> tuple[Any, Any, Any]:
    """e^-|x|, 1 + e^-|x|, and what that sum loses in rounding."""
    lanes = b.lanes(x)
    one, zero = b.constant(1.0, lanes), b.constant(0.0, lanes)
    power = exp(b, b.let(zero - absolute(b, x)))
    total = b.let(one + power)
    return power, total, b.let(power - b.let(total - one))


def _small_to_float(b: Any, n: Any) -> Any:
    """An integer below 2^22 in magnitude, put into the low bits of 1.5 * 2^23."""
    lanes = b.lanes(n)
    bits = b.let(n + b.integer(0x4B400000, lanes))
    return b.as_float(bits) - b.constant(ROUND, lanes)


def tanh(b: Any, x: Any) -> Any:
    """Tanh x within 2 units in the last place; zeros keep their sign."""
    x = b.let(x)
    lanes = b.lanes(x)
    size = absolute(b, x)
    square = b.let(x * x)
    small = b.let(b.fma(b.let(polynomial(b, square, TANH_TERMS) * square), size, size))
    one, two = b.constant(1.0, lanes), b.constant(2.0, lanes)
    large = b.let(one - two / (exp(b, size + size) + one))
    return with_sign_of(b, b.let(b.select(size < b.constant(TANH_SMALL, lanes), small, large)), x)


def erf(b: Any, x: Any) -> Any:
    """Erf x within 2 units in the last place; zeros keep their sign.

    Beyond 0.92 it is 1 - e^p with p near ln(erfc |x|).
    """
    x = b.let(x)
    lanes = b.lanes(x)
    size = absolute(b, x)
    small = b.let(b.fma(polynomial(b, b.let(x * x), ERF_TERMS), size, size))
    limit = b.constant(ERF_LARGEST, lanes)
    bounded = b.let(b.select(size > limit, limit, size))
    large = b.let(b.constant(1.0, lanes) - exp(b, polynomial(b, bounded, ERFC_TERMS)))
    return with_sign_of(b, b.let(b.select(size < b.constant(ERF_SMALL, lanes), small, large)), x)


def sigmoid(b: Any, x: Any) -> Any:
    """1 / (1 + e^-x) within 2 units in the last place, from e^-|x|, which cannot overflow.

    What the sum and the quotient lose in rounding is put back by one Newton step.
    """
    x = b.let(x)
    lanes = b.lanes(x)
    one, zero = b.constant(1.0, lanes), b.constant(0.0, lanes)
    power, total, lost = _one_and_power(b, x)
    numerator = b.let(b.select(x < zero, power, one))
    reciprocal = b.let(one / total)
    quotient = b.let(numerator * reciprocal)
    rest = b.let(residue(b, quotient, total, numerator) - quotient * lost)
    return b.let(b.fma(rest, reciprocal, quotient))


def residue(b: Any, p: Any, q: Any, r: Any) -> Any:
    """R - p q with one rounding, where p q is close to r.

    Without a fused multiply-add the product's own error is found by splitting its factors
    (Dekker, "A floating-point technique for extending the available precision", 1971).
    """
    lanes = b.lanes(p)
    if b.cpu.fma:
        return b.let(b.fma(b.let(b.constant(0.0, lanes) - p), q, r))
    (p_high, p_low), (q_high, q_low) = _split(b, p), _split(b, q)
    product = b.let(p * q)
    error = b.let(b.let(p_high * q_high) - product)
    error = b.let(error + p_high * q_low)
    error = b.let(error + p_low * q_high)
    error = b.let(error + p_low * q_low)
    return b.let(b.let(r - product) - error)


def _split(b: Any, x: Any) -> tuple[Any, Any]:
    """X in two parts of 12 bits: x = high + low, without error."""
    big = b.let(x * b.constant(4097.0, b.lanes(x)))
    high = b.let(big - b.let(big - x))
    return high, b.let(x - high)


def floor(b: Any, x: Any) -> Any:
    """The largest integer not above x; zeros keep their sign, as do infinities and NaN."""
    rounded = round_even(b, x)
    lanes = b.lanes(x)
    lower = b.let(rounded - b.constant(1.0, lanes))
    return b.let(b.select(rounded > x, lower, rounded))


def ceil(b: Any, x: Any) -> Any:
    """The smallest integer not below x; a result of zero has the sign of x."""
    rounded = round_even(b, x)
    lanes = b.lanes(x)
    higher = b.let(rounded + b.constant(1.0, lanes))
    raised = b.let(b.select(rounded < x, higher, rounded))
    return b.let(b.select(x < b.constant(0.0, lanes), with_sign_of(b, absolute(b, raised), x), raised))


def round_even(b: Any, x: Any) -> Any:
    """The nearest integer, ties to even; a result of zero has the sign of x."""
    lanes = b.lanes(x)
    size = absolute(b, x)
    shift = b.constant(INTEGRAL, lanes)
    small = with_sign_of(b, b.let(b.let(size + shift) - shift), x)
    return b.let(b.select(size < shift, small, x))
