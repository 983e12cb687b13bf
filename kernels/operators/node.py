"""A node of an ONNX graph, as families see it that turn it into their operators.

Modules of this package name in `ONNX` what they take: for each operator type a function
that calls operators on a node's inputs and gives its outputs. Families work on channels
last; what ONNX defines on channels first is transposed around, and `kernels.graph` moves
the transpositions to where they cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from kernels.elements import numpy_type
from kernels.errors import InputError
from kernels.operators.base import Array, Shape
from kernels.program import ElementType, Tensor


class Node(Protocol):
    """One node with its inputs; `outputs` has an empty name where nobody needs one."""

    op: str
    opset: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[str, ...]

    def attribute(self, key: str, default: Any = None) -> Any:
        """An attribute's value: a number, text, a tuple of numbers, or an array."""

    def given(self, number: int) -> Tensor:
        """An input that must be there; InputError otherwise."""

    def value(self, number: int) -> Array | None:
        """An input's value, if it is there and constant."""

    def known(self, number: int, what: str) -> Array:
        """An input's value; InputError where `what` is not constant."""

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor's value is known when the library is built."""

    def constant_value(self, tensor: Tensor) -> Array | None:
        """A tensor's value, if it is constant."""

    def call(
        self,
        kind: str,
        operands: Mapping[str, Tensor],
        attributes: Mapping[str, Any] | None = None,
        **entry: Any,
    ) -> Tensor:
        """The result of one of our operators; `entry` has further keys of its entry."""

    def is_unknown(self, number: int) -> bool:
        """Whether an input is there whose value the library gets when it runs."""

    def constant(self, value: Array) -> Tensor:
        """A constant tensor; float64 is rounded once, when all folding is done."""

    def refuse(self, why: str) -> InputError:
        """The error that names this node and says what about it is not supported."""


Importer: TypeAlias = Callable[[Node], "Tensor | tuple[Tensor, ...]"]
"""Gives a node's output, or its outputs in order."""


def reshaped(node: Node, x: Tensor, shape: Shape) -> Tensor:
    """The elements of x, in order, in another shape."""
    if x.shape == shape:
        return x
    return node.call("reshape", {"x": x}, {"shape": shape})


def without_elements(node: Node, x: Tensor, shape: Shape) -> Tensor:
    """A tensor of x's type of a shape with an extent 0: it is constant, for its value is known."""
    return node.constant(np.zeros(shape, numpy_type(x.dtype)))


def transposed(node: Node, x: Tensor, permute: Shape) -> Tensor:
    """The axes of x in another order."""
    if permute == tuple(range(len(permute))):
        return x
    return node.call("transpose", {"x": x}, {"permute": permute})


def channels_last(node: Node, x: Tensor) -> Tensor:
    """NCHW to NHWC, for images of any number of dimensions."""
    rank = len(x.shape)
    return transposed(node, x, (0, *range(2, rank), 1))


def channels_first(node: Node, x: Tensor) -> Tensor:
    """NHWC to NCHW, for images of any number of dimensions."""
    rank = len(x.shape)
    return transposed(node, x, (0, rank - 1, *range(1, rank - 1)))


def axis_of(node: Node, axis: int, rank: int) -> int:
    """An axis counted from the first; InputError if it is not there."""
    if not -rank <= axis < rank:
        raise node.refuse(f"axis {axis} of a tensor of {rank} dimensions")
    return axis % rank


def optional(node: Node, number: int) -> Tensor | None:
    """An input that may be left out, if it is there."""
    return node.given(number) if number < len(node.inputs) and node.inputs[number] is not None else None


def real(node: Node, *tensors: Tensor) -> None:
    """InputError unless all tensors are of floating-point numbers."""
    for tensor in tensors:
        if not tensor.dtype.floating:
            raise node.refuse(f"'{tensor.name}' is of type {tensor.dtype}; only {REAL} are supported here")


REAL = ", ".join(kind for kind in ElementType if kind.floating)


def integers(node: Node, number: int, attribute: str, default: Any = None) -> tuple[int, ...] | None:
    """Numbers that newer opsets give as a constant input, and older ones as an attribute."""
    if number < len(node.inputs) and node.inputs[number] is not None:
        return tuple(int(v) for v in np.ravel(node.known(number, attribute)))
    given = node.attribute(attribute, default)
    return None if given is None else tuple(int(v) for v in np.ravel(given))


def scalar(node: Node, number: int, attribute: str, default: float) -> float:
    """A number that newer opsets give as a constant input, and older ones as an attribute."""
    if number < len(node.inputs) and node.inputs[number] is not None:
        return float(np.ravel(node.known(number, attribute))[0])
    return float(node.attribute(attribute, default))
