"""Program, the waist of kernfit: what is to be computed, as typed and serialised data.

A Program is at ONNX's granularity: readers of any format produce one, and everything
behind works on nothing else. It knows no target and no schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Any, Literal, TypeAlias

import msgspec
from numpy.typing import NDArray

Attribute: TypeAlias = bool | int | float | str | tuple[int, ...]


class ElementType(StrEnum):
    """Element types by ONNX's names."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"
    UINT8 = "uint8"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"

    @property
    def bytes(self) -> int:
        """Size of one element in bytes; a bool is a byte of 0 or 1."""
        return SIZES[self]

    @property
    def floating(self) -> bool:
        """Whether it is one of the formats of floating-point numbers."""
        return self in (ElementType.FLOAT32, ElementType.FLOAT16, ElementType.BFLOAT16)


SIZES = {
    ElementType.FLOAT32: 4,
    ElementType.FLOAT16: 2,
    ElementType.BFLOAT16: 2,
    ElementType.INT8: 1,
    ElementType.UINT8: 1,
    ElementType.INT32: 4,
    ElementType.INT64: 8,
    ElementType.BOOL: 1,
}


class Role(StrEnum):
    """What a tensor is to the program; the C signature follows from it."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    STATE = "state"
    INTERNAL = "internal"


class Quantization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Affine quantisation, real = scale * (stored - zero_point), per tensor or along an axis."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named array of static shape."""

    name: str
    shape: tuple[int, ...]
    role: Role
    dtype: ElementType = ElementType.FLOAT32
    layout: str = "rows"
    quantization: Quantization | None = None

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes, unpacked."""
        return self.elements * self.dtype.bytes


class Operator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node: `kind` names a module of `kernels.operators`, operands are tensor names.

    Operators with the same `group` become one kernel of that name, the first of them
    leading and the rest fused into its epilogue; an empty group leaves it to fusion.
    `operands` are the family's own names of the inputs ("x", "w"), in the order of
    `inputs`, and of the output, last.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operands: tuple[str, ...] = ()
    attributes: dict[str, Attribute] = {}
    group: str = ""
    count: int = 1


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """All operators and tensors of one model.

    `form` is `listing` for a bag of kernels without values, which has no `_run`, and
    `network` for a whole model. `dims` are the sizes that its open dimensions were given, and the
    values of inputs that are none of the program's, by their names.
    """

    name: str
    form: Literal["listing", "network"]
    source: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    dims: dict[str, int] = {}

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name; KeyError if there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Tensor]:
        """Made once: a network asks for each tensor many times."""
        return {tensor.name: tensor for tensor in self.tensors}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A program of form `network`, and the values of its tensors with role CONSTANT, by name.

    Operators are in topological order and shapes are physical: as the tensor lies in
    memory, which its `layout` names.
    """

    program: Program
    constants: Mapping[str, NDArray[Any]]


Model: TypeAlias = Program | Network
"""What the user brings, read: a listing, or a whole network."""


def program_of(model: Model) -> Program:
    """What a model computes."""
    return model.program if isinstance(model, Network) else model
