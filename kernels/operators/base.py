"""What an operator family is: one class that defines, schedules, emits and judges it."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.elements import numpy_type
from kernels.errors import InputError
from kernels.plan import Kernel, Operand, Packing, Tuned
from kernels.program import Attribute, ElementType, Role, Tensor
from toolchains.target import CPU

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Array = NDArray[Any]
Words = Mapping[str, Mapping[str, Attribute]]
"""Words for `fuse`, each with the attributes that it stands for."""

UNIT_ROUNDOFF = 2.0**-24
"""u of binary32 with rounding to nearest (IEEE 754-2019, table 3.5: p = 24)."""


FLOATING = frozenset(kind for kind in ElementType if kind.floating)
"""float32 and the halves, which are widened where they are read and rounded where they are stored."""
WHOLE = frozenset((ElementType.INT8, ElementType.UINT8, ElementType.INT32, ElementType.INT64))
"""Integers, which wrap around in two's complement."""
NUMBERS = FLOATING | WHOLE
ALL_TYPES = frozenset(ElementType)


class Epilogue(Protocol):
    """The fused steps on a vector of results, given its pixel and its first column."""

    heavy: bool

    def __call__(self, value: Any, pixel: Any, column: Any) -> Any:
        """The vector after all steps."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that every `[[kernel]]` of a listing may have; families add their own."""

    name: str
    op: str
    count: int = 1
    fuse: tuple[str, ...] = ()
    type: ElementType = ElementType.FLOAT32
    """Of all tensors that the operator does not give another type."""


S = TypeVar("S", bound=msgspec.Struct)


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing's entry means: the operator's attributes and its tensors, in order."""

    attributes: dict[str, Attribute]
    operands: tuple[Tensor, ...]
    output: Tensor


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a family decided for one kernel on one processor.

    `in_place` names an input each of whose elements is read for the last time before the
    output's at the same place is written. `written_once` promises of the output that each
    element is written a single time, after the epilogue's operands were read there; not
    where a heavy step may need the output's memory first.
    """

    schedule: msgspec.Struct | None = None
    packing: dict[str, Packing] = {}
    arena_bytes: int = 0
    in_place: str = ""
    written_once: bool = False


class Scheduler(msgspec.Struct, frozen=True, kw_only=True):
    """What decides on a schedule: a record of tuning, or else a model of the processor.

    `winograd` says that speed may cost accuracy; then `tuned_winograd` is the record of a
    schedule that does so.
    """

    cpu: CPU
    tuned: Tuned | None = None
    winograd: bool = False
    tuned_winograd: Tuned | None = None

    def schedule(self, kind: type[S], model: Callable[[], S]) -> S:
        """The tuned schedule as it is; what the model chooses where there is none."""
        return model() if self.tuned is None else msgspec.convert(self.tuned, kind)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A float64 result together with what bounds the float32 kernel's distance from it.

    The distance is at most growth(roundings) * u * magnitude plus, for underflow,
    roundings times the spacing near zero, plus `extra`; element by element. `underflows` adds to those
    roundings, where what underflows is multiplied afterwards.
    """

    value: Array
    magnitude: Array
    roundings: int
    extra: Array | float = 0.0
    underflows: Array | float = 0.0

    def bound(self, *, flushes_subnormals: bool) -> Array:
        """The largest distance that the kernel may have, for each element."""
        spacing = 2.0**-126 if flushes_subnormals else 2.0**-149
        relative = growth(self.roundings) * UNIT_ROUNDOFF
        near_zero = (self.roundings + self.underflows) * spacing
        bound: Array = relative * self.magnitude + near_zero + self.extra
        return bound


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
    """An operator family. Modules of this package name theirs in `FAMILIES`."""

    kind: str
    entry: ClassVar[type[Any]]
    attributes: ClassVar[type[Any]]
    input_scale: ClassVar[float] = 1.0
    """Checks draw inputs from [-input_scale, input_scale)."""
    fuses: ClassVar[bool] = True
    """Whether other operators may be fused into its epilogue."""
    weights: ClassVar[frozenset[str]] = frozenset()
    """Operands that are vectors along the last axis of x, such as a scale."""
    special_inputs: ClassVar[bool] = False
    """Checks also draw from all exponents, and begin with zeros, infinities and NaN."""
    types: frozenset[ElementType] = frozenset((ElementType.FLOAT32,))
    """What the tensors may be of that `define` leaves at float32."""

    def typed(self, definition: Definition, dtype: ElementType) -> Definition:
        """The definition with another type in the place of float32; InputError if there is none such."""
        if dtype not in self.types:
            known = ", ".join(kind for kind in ElementType if kind in self.types)
            raise InputError(f"{self.kind} takes {known}, not {dtype}", key="type")

        def of(tensor: Tensor) -> Tensor:
            left = tensor.dtype is ElementType.FLOAT32
            return msgspec.structs.replace(tensor, dtype=dtype) if left else tensor

        return msgspec.structs.replace(
            definition, operands=tuple(map(of, definition.operands)), output=of(definition.output)
        )

    def draw(self, generator: np.random.Generator, operand: Operand) -> Array:
        """Contents for an input in a check."""
        if operand.dtype is not ElementType.FLOAT32:
            return drawn(generator, operand, self.input_scale, special=self.special_inputs)
        values = generator.uniform(-self.input_scale, self.input_scale, operand.shape)
        array = values.astype(np.float32)
        if self.special_inputs:
            flat = array.reshape(-1)
            bits = generator.integers(0, 1 << 32, flat.size, dtype=np.uint32).view(np.float32)
            flat[1::2] = bits[1::2]
            count = min(flat.size, SPECIAL.size)
            flat[:count] = SPECIAL[:count]
        return array

    def drawn_for(self, kernel: Kernel, generator: np.random.Generator, operand: Operand) -> Array:
        """Contents for an input of a planned kernel, whose attributes may say what they must be."""
        return self.draw(generator, operand)

    def draw_special(self, kernel: Kernel, generator: np.random.Generator, operand: Operand) -> Array:
        """The same with special numbers scattered among it; whole numbers stay as they are.

        They are zeros of both signs, subnormal ones, infinities and NaN; the last two not for
        Winograd's algorithm, which spreads them.
        """
        array = self.drawn_for(kernel, generator, operand)
        drawn_so = self.special_inputs and operand.dtype is ElementType.FLOAT32
        if drawn_so or not operand.dtype.floating:
            return array
        return scattered(generator, array, finite=bool(kernel.winograd))

    @abc.abstractmethod
    def define(self, entry: Any) -> Definition:
        """Tensors and attributes of a listing's entry; InputError where they do not fit."""

    @abc.abstractmethod
    def flops(self, attributes: Any, shapes: Shapes) -> int:
        """Floating-point operations of one call, a multiply-add counted as two."""

    def plan(self, attributes: Any, shapes: Shapes, weights: frozenset[str], by: Scheduler) -> Planned:
        """The schedule for a processor, if there is anything to decide.

        `weights` are the operands known ahead of time.
        """
        return Planned()

    def carried(self, attributes: Any, rank: int, axes: Mapping[int, int], shape: Shape) -> Any:
        """The attributes for operands that are stored otherwise than they are meant.

        Of the `rank` axes that are meant, `axes` says which stay whole, and as which axis of
        the stored `shape`. None where the operator must have its operands as it defines
        them, as by default.
        """
        return None

    def absorbed(self, attributes: Any, operand: str, permute: Shape, x: Tensor) -> Any:
        """The attributes with which the operator transposes an operand by itself; None if it cannot.

        The operand is `x`, its axes in the order `permute`.
        """
        return None

    @abc.abstractmethod
    def emit(self, b: Any, kernel: Kernel, epilogue: Epilogue) -> None:
        """Emit the kernel's body with the builder `b`."""

    @abc.abstractmethod
    def reference(self, attributes: Any, arrays: Mapping[str, Array]) -> Estimate:
        """The result in float64, computed from unpacked operands by name."""

    def estimate(self, kernel: Kernel, arrays: Mapping[str, Array]) -> Estimate:
        """The reference of a planned kernel: its schedule may have chosen how it computes."""
        return self.reference(msgspec.convert(kernel.attributes, self.attributes), arrays)


class ElementWise(Family):
    """A family that can also stand in another kernel's epilogue, by its `fuse` words."""

    words: Words
    heavy: bool = False
    """Too long to be repeated: for each accumulator of a register tile, or neighbouring vectors."""
    by_channel: ClassVar[str] = ""
    """In an epilogue, what its second operand is called if it may be a constant for each channel."""

    @abc.abstractmethod
    def apply(self, b: Any, attributes: Any, value: Any, operand: Any) -> Any:
        """The function on one vector; `operand` is the second input's, if there is one."""

    @abc.abstractmethod
    def apply_estimate(self, attributes: Any, estimate: Estimate, operand: Array | None) -> Estimate:
        """The function on an estimate, its bound carried along."""


SPECIAL = np.array(
    [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0,
        -1.0,
        2.0**-149,
        -(2.0**-149),
        2.0**-126,
        3.4028235e38,
        -3.4028235e38,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        8388607.5,
        8388609.0,
        88.7,
        89.5,
        -87.3,
        -103.9,
        -104.5,
    ],
    dtype=np.float32,
)
"""Arguments at which functions tend to go wrong."""


def scattered(generator: np.random.Generator, array: Array, *, finite: bool) -> Array:
    """The array with up to eight special numbers in it, in the place of no more than half of it.

    They are subnormal numbers, zeros of both signs and, unless all must be `finite`, NaN and
    infinities; a small array gets some of them.
    """
    kind = np.dtype(f"u{array.itemsize}")
    sign = 1 << 8 * array.itemsize - 1
    subnormal = np.array([1, sign | 3], kind).view(array.dtype)
    known = [0.0, -0.0] if finite else [np.nan, np.inf, -np.inf, 0.0, -0.0, np.inf]
    numbers = generator.permutation(np.concatenate([subnormal, np.array(known, array.dtype)]))
    numbers = numbers[: (array.size + 1) // 2]
    result = array.copy()
    result.reshape(-1)[generator.permutation(array.size)[: numbers.size]] = numbers
    return result


def fused_as(**words: dict[str, Attribute]) -> Words:
    """The words of a family, each with its attributes."""
    return words


def along_its_axis(attributes: Any, rank: int, axes: Mapping[int, int]) -> Any:
    """The same attributes with their `axis` where it lies in another layout; None if it is split there."""
    axis = axes.get(attributes.axis % rank)
    return None if axis is None else msgspec.structs.replace(attributes, axis=axis)


def positive(key: str, values: Shape, *, rank: int | None = None) -> Shape:
    """`values` if all are positive and there are `rank` of them; InputError otherwise."""
    if rank is not None and len(values) != rank:
        raise InputError(f"{key} has {len(values)} numbers, but needs {rank}", key=key)
    if not values or min(values) < 1:
        shown = values[0] if len(values) == 1 else list(values)
        raise InputError(f"{key} = {shown} must be positive", key=key)
    return values


def from_one_input(attributes: msgspec.Struct, x: Shape, y: Shape, *, layout: str = "rows") -> Definition:
    """The definition of an operator that makes y of a single input x, in the same layout."""
    return Definition(
        attributes=msgspec.to_builtins(attributes),
        operands=(Tensor(name="x", shape=x, layout=layout, role=Role.INPUT),),
        output=Tensor(name="y", shape=y, layout=layout, role=Role.OUTPUT),
    )


def exact(value: Array) -> Estimate:
    """An estimate of a result that involves no rounding at all."""
    wide = widened(value)
    return Estimate(value=wide, magnitude=np.zeros(wide.shape), roundings=0)


def widened(value: Any) -> Array:
    """Floating-point numbers in float64; integers and truth values as they are, for they wrap."""
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return array
    with np.errstate(invalid="ignore"):
        return array.astype(np.float64)


def drawn(generator: np.random.Generator, operand: Operand, scale: float, *, special: bool) -> Array:
    """Contents of any type: integers of all sizes, and their extremes first."""
    dtype, shape = numpy_type(operand.dtype), operand.shape
    if operand.dtype is ElementType.BOOL:
        return generator.integers(0, 2, shape).astype(dtype)
    if not operand.dtype.floating:
        info = np.iinfo(dtype)
        numbers = generator.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        array = np.asarray(numbers >> generator.integers(0, info.bits, shape).astype(dtype))
        ends = np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1], dtype)
    else:
        array = generator.uniform(-scale, scale, shape).astype(dtype)
        with np.errstate(over="ignore"):
            ends = SPECIAL[: SPECIAL.size if special else 0].astype(dtype)
        if special:
            unsigned = np.dtype(f"u{dtype.itemsize}")
            bits = generator.integers(0, 1 << 8 * dtype.itemsize, array.size, dtype=unsigned).view(dtype)
            array.reshape(-1)[1::2] = bits[1::2]
    count = min(array.size, ends.size)
    array.reshape(-1)[:count] = ends[:count]
    return array
