"""Makes a kernel's inputs and judges its outputs against a float64 reference and its bound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.elements import from_bytes, numpy_type, to_bytes
from kernels.operators import find_family
from kernels.operators.base import ElementWise, Estimate
from kernels.pack import pack
from kernels.plan import Kernel, Step
from kernels.program import ElementType
from toolchains.target import Target

Array = NDArray[Any]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The worst element of a result: its distance from the reference and its bound."""

    passed: bool
    error: float
    bound: float
    reason: str = ""


SMALLEST_NORMAL = 2.0**-126


def make_inputs(kernel: Kernel, target: Target, *, special: bool = False) -> dict[str, Array]:
    """Unpacked inputs, drawn in the family's range; the same for every target.

    `special` ones hold NaN, infinities, subnormal numbers and zeros of both signs too. But where
    a target flushes subnormal numbers, none are among them; and Winograd's algorithm, which
    spreads an infinity over its whole tile, gets finite ones.
    """
    arrays = {}
    family = find_family(kernel.kind)
    for operand in kernel.operands:
        if operand.role == "output":
            continue
        seed = hashlib.sha256(f"{kernel.name}/{operand.name}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8], "little")))
        draw = family.draw_special if special else family.drawn_for
        array = draw(kernel, generator, operand)
        if target.cpu.flushes_subnormals and operand.dtype.floating:
            zero = np.copysign(array.dtype.type(0), array)
            with np.errstate(invalid="ignore"):
                array = np.where(np.abs(array) < array.dtype.type(SMALLEST_NORMAL), zero, array)
        arrays[operand.name] = array
    return arrays


def input_bytes(kernel: Kernel, arrays: dict[str, Array], target: Target) -> bytes:
    """What a runner reads: the operands in order, packed, in the target's byte order."""
    parts = []
    for operand in kernel.operands:
        if operand.role != "output":
            array = arrays[operand.name]
            flat = pack(array, operand.packing) if operand.packing else array
            parts.append(to_bytes(flat, target.byte_order))
    return b"".join(parts)


def reference(kernel: Kernel, arrays: dict[str, Array]) -> Estimate:
    """The kernel's result in float64, its epilogue included."""
    family = find_family(kernel.kind)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # special numbers do that
        estimate = family.estimate(kernel, arrays)
        return apply_steps(kernel.epilogue, estimate, arrays)


def apply_steps(steps: Iterable[Step], estimate: Estimate, arrays: dict[str, Array]) -> Estimate:
    """An estimate after the fused steps, whose operands are among `arrays`."""
    for step in steps:
        fused = find_family(step.kind)
        if not isinstance(fused, ElementWise):
            raise TypeError(f"{step.kind} is not element-wise")
        operand = arrays[step.operand] if step.operand else None
        attributes = msgspec.convert(step.attributes, fused.attributes)
        estimate = fused.apply_estimate(attributes, estimate, operand)
    return estimate


def judge(kernel: Kernel, arrays: dict[str, Array], output: bytes, target: Target) -> Verdict:
    """Compare a runner's output with the reference; NaN where a number is due is wrong."""
    shape = kernel.output.shape
    if len(output) != kernel.output.bytes:
        return Verdict(
            passed=False,
            error=float("inf"),
            bound=0.0,
            reason=f"{len(output)} bytes of output instead of {kernel.output.bytes}",
        )
    found = from_bytes(output, kernel.output.dtype, target.byte_order)
    estimate = reference(kernel, arrays)
    dtype = kernel.output.dtype
    if dtype.floating:
        bound = estimate.bound(flushes_subnormals=target.cpu.flushes_subnormals).ravel()
        bound = rounded_once(dtype, estimate.value.ravel(), bound)
        with np.errstate(invalid="ignore"):  # NaN may signal
            found = found.astype(np.float64)
        error = _distance(dtype, found, estimate.value.ravel(), bound)
    else:
        error = apart(found, estimate.value.ravel())
        bound = np.zeros_like(error)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / bound)
    if dtype.floating and find_family(kernel.kind).special_inputs:
        expected = estimate.value.ravel()
        zeros = (found == 0) & (expected == 0)
        share[zeros & (np.signbit(found) != np.signbit(expected))] = np.inf
    worst = int(np.argmax(share))
    verdict = Verdict(
        passed=bool(share[worst] <= 1.0), error=float(error[worst]), bound=float(bound[worst])
    )
    if verdict.passed:
        return verdict
    index = tuple(int(i) for i in np.unravel_index(worst, shape))
    wrong = int(np.count_nonzero(share > 1.0))
    return msgspec.structs.replace(
        verdict,
        reason=(
            f"{kernel.output.name}{list(index)}: expected {estimate.value.ravel()[worst]:.9g}, "
            f"found {found[worst]:.9g}, error {error[worst]:.3g} over the bound {bound[worst]:.3g}; "
            f"{wrong} of {found.size} elements are wrong"
        ),
    )


def rounded_once(dtype: ElementType, value: Array, bound: Array) -> Array:
    """The bound of a float32 result that is rounded to `dtype`, to nearest.

    Rounding is monotone: what was within the bound of the value lies between the two ends,
    rounded. So elements that are only moved must be exact, and others may be off by half a unit
    in the last place, u = 2^-11 or 2^-8 (IEEE 754-2019, table 3.5: p = 11; bfloat16: p = 8).
    """
    if dtype is ElementType.FLOAT32:
        return bound
    kind = numpy_type(dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = ((value + side).astype(kind).astype(np.float64) for side in (-bound, bound))
        widest = np.maximum(high - value, value - low)
    return np.where(np.isfinite(widest), widest, bound)


def apart(found: Array, expected: Array) -> Array:
    """How far integers, or truth values, are from each other: 0 for equal ones alone."""
    error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return np.where(found == expected.astype(found.dtype), 0.0, np.maximum(error, 1.0))


def _distance(dtype: ElementType, found: Array, expected: Array, bound: Array) -> Array:
    """|found - expected|, with NaN equal to NaN alone, and the type's overflow taken for infinity."""
    kind = numpy_type(dtype)
    largest = LARGEST[dtype]
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = expected.astype(kind).astype(np.float64)
        error = np.abs(found - expected)
        near_overflow = np.isinf(found) & (np.abs(expected) + bound > largest) & (found * expected > 0)
    same = (found == rounded) | (np.isnan(found) & np.isnan(expected))
    error[np.isnan(error)] = np.inf
    settled = (same & ~np.isfinite(rounded)) | near_overflow
    return np.where(settled, 0.0, error)


LARGEST = {
    ElementType.FLOAT32: (2.0 - 2.0**-23) * 2.0**127,
    ElementType.FLOAT16: (2.0 - 2.0**-10) * 2.0**15,
    ElementType.BFLOAT16: (2.0 - 2.0**-7) * 2.0**127,
}
"""The largest finite number of each format."""
