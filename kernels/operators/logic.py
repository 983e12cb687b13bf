"""Arithmetic that only integers and truth values have: by bits, by shifts, and remainders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np

from kernels.operators import remainders, whole_numbers
from kernels.operators.base import NUMBERS, WHOLE, Array, Entry, Estimate, exact, fused_as, widened
from kernels.operators.binary import both
from kernels.operators.elementwise import Map, MapEntry, PairEntry, TwoInputs
from kernels.operators.node import Node, reshaped
from kernels.program import ElementType, Tensor


class Bitwise(Map):
    """One function of two integers, or of truth values as bytes of 0 and 1."""

    entry: ClassVar[type[Any]] = PairEntry
    words = fused_as()

    def __init__(
        self,
        kind: str,
        emit: Callable[[Any, Any, Any], Any],
        exact: Callable[..., Array],
        types: frozenset[ElementType],
    ) -> None:
        """A function as the builder and as NumPy make it."""
        self.kind, self._emit, self._exact, self.types = kind, emit, exact, types

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A few instructions."""
        return self._emit(b, value, operand)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """Exact."""
        others = () if operand is None else (widened(operand),)
        return exact(self._exact(estimate.value, *others))


class Inverse(Bitwise):
    """One function of one integer, or of one truth value."""

    entry = MapEntry


class ModAttributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the remainder has the sign of the dividend, as C's, or of the divisor, as Python's."""

    truncated: bool = False


class ModEntry(Entry, frozen=True, kw_only=True):
    """A remainder in a listing."""

    inputs: TwoInputs
    attributes: ModAttributes = ModAttributes()
    type: ElementType = ElementType.INT32


class Mod(Map):
    """What is left of a, divided by b; where b is 0, 0 of integers and else NaN."""

    kind = "mod"
    entry = ModEntry
    attributes = ModAttributes
    words = fused_as()
    heavy = True
    special_inputs = True
    types = NUMBERS

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """A division and a product; of floating-point numbers digit by digit."""
        if b.is_real(value):
            return remainders.remainder(b, b.let(value), b.let(operand), truncated=attributes.truncated)
        return whole_numbers.remainder(b, value, operand, truncated=attributes.truncated)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """Exact; but the sum that changes a floating-point number's sign is rounded."""
        divisor = widened(operand)
        if divisor.dtype.kind == "f":
            with np.errstate(all="ignore"):
                value = (np.fmod if attributes.truncated else np.mod)(estimate.value, divisor)
            return Estimate(value=value, magnitude=np.abs(value) * (not attributes.truncated), roundings=1)
        return exact(whole_numbers.exact_remainder(estimate.value, divisor, truncated=attributes.truncated))


def _shifted(b: Any, x: Any, count: Any, *, left: bool) -> Any:
    """By any count that a type holds: what is shifted out altogether leaves 0, or else the sign.

    A processor's shift says otherwise. Counts below 0 shift everything out, as those beyond the
    type do: so ONNX's tests have it.
    """
    bits = int(b.scalar(x).lstrip("uint"))
    last = b.like(bits - 1, count)
    count = b.let(b.select(count < b.like(0, count), b.like(bits, count), count))
    bounded = b.let(b.select(count > last, last, count))
    moved = b.let(x << bounded if left else x >> bounded)
    return moved if b.is_signed(x) and not left else b.select(count > last, b.like(0, x), moved)


def _exact_shift(x: Array, count: Array, *, left: bool) -> Array:
    last = 8 * x.dtype.itemsize - 1
    beyond = (count < 0) | (count > last)
    bounded = np.where(beyond, last, count).astype(x.dtype)
    moved = x << bounded if left else x >> bounded
    emptied = beyond & (left or x.dtype.kind == "u")
    return np.asarray(np.where(emptied, x.dtype.type(0), moved))


BITS = WHOLE | {ElementType.BOOL}
BOOL = frozenset((ElementType.BOOL,))
FAMILIES = (
    Bitwise("bitwise_and", lambda b, x, y: x & y, np.bitwise_and, BITS),
    Bitwise("bitwise_or", lambda b, x, y: x | y, np.bitwise_or, BITS),
    Bitwise("bitwise_xor", lambda b, x, y: x ^ y, np.bitwise_xor, BITS),
    Inverse("bitwise_not", lambda b, x, _: ~x, np.bitwise_not, WHOLE),
    Inverse("logical_not", lambda b, x, _: x ^ b.like(1, x), np.logical_not, BOOL),
    Bitwise(
        "shift_left",
        lambda b, x, y: _shifted(b, x, y, left=True),
        lambda x, y: _exact_shift(x, y, left=True),
        WHOLE,
    ),
    Bitwise(
        "shift_right",
        lambda b, x, y: _shifted(b, x, y, left=False),
        lambda x, y: _exact_shift(x, y, left=False),
        WHOLE,
    ),
    Mod(),
)

PAIRS: Mapping[str, str] = {
    "And": "bitwise_and",
    "Or": "bitwise_or",
    "Xor": "bitwise_xor",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
}
ALONE: Mapping[str, str] = {"Not": "logical_not", "BitwiseNot": "bitwise_not"}


def _pair(node: Node) -> Tensor:
    return both(node, PAIRS[node.op], node.given(0), node.given(1))


def _alone(node: Node) -> Tensor:
    x = node.given(0)
    return reshaped(node, node.call(ALONE[node.op], {"x": reshaped(node, x, x.shape or (1,))}), x.shape)


def _shift(node: Node) -> Tensor:
    kind = "shift_left" if node.attribute("direction") == "LEFT" else "shift_right"
    return both(node, kind, node.given(0), node.given(1))


def _mod(node: Node) -> Tensor:
    truncated = {"truncated": bool(node.attribute("fmod", 0))}
    return both(node, "mod", node.given(0), node.given(1), truncated)


ONNX = dict.fromkeys(PAIRS, _pair) | dict.fromkeys(ALONE, _alone) | {"BitShift": _shift, "Mod": _mod}
