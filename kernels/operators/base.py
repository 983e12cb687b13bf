"""What an operator family is: one class that defines, schedules, emits and judges it."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.errors import InputError
from kernels.plan import Kernel, Packing
from kernels.program import Attribute, Tensor
from toolchains.target import CPU

Shape = tuple[int, ...]
Array = NDArray[Any]
Words = Mapping[str, Mapping[str, Attribute]]
"""Words for `fuse`, each with the attributes that it stands for."""
Epilogue = Callable[[Any, Any, Any], Any]
"""epilogue(vector, pixel, column) -> vector: the fused steps on results in registers."""

UNIT_ROUNDOFF = 2.0**-24
"""u of binary32 with rounding to nearest (IEEE 754-2019, table 3.5: p = 24)."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that every `[[kernel]]` of a listing may have; families add their own."""

    name: str
    op: str
    count: int = 1
    fuse: tuple[str, ...] = ()


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing's entry means: the operator's attributes and its tensors, in order."""

    attributes: dict[str, Attribute]
    operands: tuple[Tensor, ...]
    output: Tensor


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a family decided for one kernel on one processor."""

    schedule: msgspec.Struct | None = None
    packing: dict[str, Packing] = {}
    arena_bytes: int = 0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A float64 result together with what bounds the float32 kernel's distance from it.

    The distance is at most growth(roundings) * u * magnitude plus, for underflow,
    roundings times the spacing near zero; element by element.
    """

    value: Array
    magnitude: Array
    roundings: int

    def bound(self, *, flushes_subnormals: bool) -> Array:
        """The largest distance that the kernel may have, for each element."""
        spacing = 2.0**-126 if flushes_subnormals else 2.0**-149
        relative = growth(self.roundings) * UNIT_ROUNDOFF
        return relative * self.magnitude + self.roundings * spacing


def growth(roundings: int) -> float:
    """How many units of round-off a chain of that many roundings may accumulate.

    The deterministic bound is n / (1 - n u) (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2nd ed., 2002, lemma 3.1). For long chains the probabilistic one, with
    lambda = 8, is lambda sqrt(n) but for a chance of 2 exp(-lambda^2 / 2) < 3e-14 for each
    element (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4); it keeps the
    bound below the size of a single missing term of a long sum.
    """
    return min(roundings / (1 - roundings * UNIT_ROUNDOFF), 8.0 * math.sqrt(roundings))


class Family(abc.ABC):
    """An operator family. Subclasses are found by their modules in this package."""

    kind: ClassVar[str]
    entry: ClassVar[type[Any]]
    attributes: ClassVar[type[Any]]
    input_scale: ClassVar[float] = 1.0
    """Checks draw inputs from [-input_scale, input_scale)."""

    @abc.abstractmethod
    def define(self, entry: Any) -> Definition:
        """Tensors and attributes of a listing's entry; InputError where they do not fit."""

    @abc.abstractmethod
    def flops(self, attributes: Any, shapes: Mapping[str, Shape]) -> int:
        """Floating-point operations of one call, a multiply-add counted as two."""

    @abc.abstractmethod
    def plan(
        self, attributes: Any, shapes: Mapping[str, Shape], weights: frozenset[str], cpu: CPU
    ) -> Planned:
        """The schedule for a processor; `weights` are the operands known ahead of time."""

    @abc.abstractmethod
    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Emit the kernel's body with the builder `b`."""

    @abc.abstractmethod
    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """The result in float64, computed from unpacked operands by name."""


class ElementWise(Family):
    """A family that can also stand in another kernel's epilogue, by its `fuse` words."""

    words: ClassVar[Words]

    @abc.abstractmethod
    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """The function on one vector; `operand` is the second input's, if there is one."""

    @abc.abstractmethod
    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """The function on an estimate, its bound carried along."""


def positive(key: str, values: Shape, *, rank: int | None = None) -> Shape:
    """`values` if all are positive and there are `rank` of them; InputError otherwise."""
    if rank is not None and len(values) != rank:
        raise InputError(f"{key} has {len(values)} numbers, but needs {rank}", key=key)
    if not values or min(values) < 1:
        shown = values[0] if len(values) == 1 else list(values)
        raise InputError(f"{key} = {shown} must be positive", key=key)
    return values


def exact(value: Array) -> Estimate:
    """An estimate of a result that involves no rounding at all."""
    wide = np.asarray(value, dtype=np.float64)
    return Estimate(value=wide, magnitude=np.zeros_like(wide), roundings=0)
