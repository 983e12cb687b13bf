"""Comparisons, which give truth values, and the choice between two tensors by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from kernels.operators.base import (
    ALL_TYPES,
    FLOATING,
    NUMBERS,
    Array,
    Definition,
    Entry,
    Estimate,
    Shape,
    exact,
    fused_as,
    widened,
)
from kernels.operators.elementwise import Map, PairEntry
from kernels.operators.node import Node, reshaped
from kernels.program import ElementType, Tensor


class Comparison(Map):
    """y = 1 where the comparison of a and b holds, else 0; with NaN only `not equal` does."""

    entry = PairEntry
    words = fused_as()
    special_inputs = True
    result = ElementType.BOOL
    types = NUMBERS

    def __init__(
        self, kind: str, emit: Callable[[Any, Any, Any], Any], exact: Callable[[Array, Array], Array]
    ) -> None:
        """A comparison as the builder and as NumPy make it."""
        self.kind, self._emit, self._exact = kind, emit, exact
        if kind == "equal":
            self.types = ALL_TYPES

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """One condition."""
        return self._emit(b, value, operand)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """Exact, as its inputs are."""
        return exact(self._exact(estimate.value, widened(operand)))


class IsNaN(Map):
    """y = 1 where x is no number, else 0."""

    kind = "is_nan"
    words = fused_as()
    special_inputs = True
    result = ElementType.BOOL
    types = FLOATING

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """Nothing else differs from itself."""
        return b.differ(value, value)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """Exact."""
        return exact(np.isnan(estimate.value))


class ThreeInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A truth value for each place, what is taken where it is 1, and what elsewhere; they broadcast."""

    condition: Shape
    a: Shape
    b: Shape


class WhereEntry(Entry, frozen=True, kw_only=True):
    """A choice in a listing."""

    inputs: ThreeInputs


class Where(Map):
    """y = a where the condition holds, else b."""

    kind = "where"
    entry = WhereEntry
    words = fused_as()
    special_inputs = True
    types = ALL_TYPES

    def define(self, entry: WhereEntry) -> Definition:
        """The condition is of truth values, whatever a and b are."""
        definition = super().define(entry)
        condition, *others = definition.operands
        condition = msgspec.structs.replace(condition, dtype=ElementType.BOOL)
        return msgspec.structs.replace(definition, operands=(condition, *others))

    def read(self, b: Any, buffer: Any, index: Any, lanes: int) -> Any:
        """Elements are only moved, as bits."""
        return b.load(buffer, index, lanes)

    def write(self, b: Any, buffer: Any, index: Any, value: Any) -> None:
        """Elements are only moved, as bits."""
        b.store(buffer, index, value)

    def apply(self, b: Any, attributes: Any, value: Any, operand: Any, otherwise: Any = None) -> Any:
        """One selection."""
        return b.select(b.differ(value, b.like(0, value)), operand, otherwise)

    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """It is in no epilogue."""
        raise NotImplementedError

    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """NumPy's."""
        return exact(np.where(arrays["condition"], arrays["a"], arrays["b"]))


COMPARISONS: Mapping[str, tuple[str, Callable[[Any, Any, Any], Any], Callable[[Array, Array], Array]]] = {
    "Equal": ("equal", lambda b, x, y: b.equal(x, y), np.equal),
    "Less": ("less", lambda b, x, y: x < y, np.less),
    "LessOrEqual": ("less_or_equal", lambda b, x, y: x <= y, np.less_equal),
    "Greater": ("greater", lambda b, x, y: x > y, np.greater),
    "GreaterOrEqual": ("greater_or_equal", lambda b, x, y: x >= y, np.greater_equal),
}


def _compare(node: Node) -> Tensor:
    return joined(node, COMPARISONS[node.op][0], {"a": node.given(0), "b": node.given(1)})


def _where(node: Node) -> Tensor:
    return joined(node, "where", {"condition": node.given(0), "a": node.given(1), "b": node.given(2)})


def joined(node: Node, kind: str, operands: dict[str, Tensor]) -> Tensor:
    """An operator of tensors that may be scalars."""
    flat = {name: reshaped(node, tensor, tensor.shape or (1,)) for name, tensor in operands.items()}
    y = node.call(kind, flat)
    return y if any(tensor.shape for tensor in operands.values()) else reshaped(node, y, ())


def _is_nan(node: Node) -> Tensor:
    x = node.given(0)
    return reshaped(node, node.call("is_nan", {"x": reshaped(node, x, x.shape or (1,))}), x.shape)


def _is_inf(node: Node) -> Tensor:
    """Equal to one infinity, or of the size of either."""
    x = node.given(0)
    signs = (node.attribute("detect_positive", 1), node.attribute("detect_negative", 1))
    flat = reshaped(node, x, x.shape or (1,))
    if all(signs):
        flat = node.call("absolute", {"x": flat})
    bound = {(1, 1): np.inf, (1, 0): np.inf, (0, 1): -np.inf}.get(signs)
    if bound is None:
        raise node.refuse("it looks for no infinity at all")
    y = node.call("equal", {"a": flat, "b": node.constant(np.array([bound], np.float32))})
    return reshaped(node, y, x.shape)


FAMILIES = (*(Comparison(*words) for words in COMPARISONS.values()), IsNaN(), Where())
ONNX = dict.fromkeys(COMPARISONS, _compare) | {"Where": _where, "IsNaN": _is_nan, "IsInf": _is_inf}
