"""The language in which schedules are written: a thin layer over TVM's IR builder.

Schedules and operators get a `Builder` and values that they may add, multiply and
compare; they never see TVM. Vectors are explicit (a ramp of `lanes` elements), never
made by a vectorisation pass: for vector-length-agnostic targets TVM's pass would turn
them into predicated loops through memory, while LLVM lowers fixed-length ones well.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from kernels.codegen import halves
from kernels.elements import numpy_type
from kernels.plan import ARENA_ALIGNMENT, Kernel
from kernels.program import ElementType
from toolchains.target import CPU

Value = Any
"""A TVM expression: a number, an integer index or a condition, with one or more lanes."""
STORED = {ElementType.FLOAT16: "uint16", ElementType.BFLOAT16: "uint16", ElementType.BOOL: "uint8"}
"""What TVM is told of elements that no processor computes on as they are: their bits."""


class Buffer:
    """A flat array of one element type: an operand, a part of the arena, or registers."""

    def __init__(self, data: Value, element: ElementType = ElementType.FLOAT32) -> None:
        """Wrap a declared TVM buffer; `element` says what the bits of an operand mean."""
        self.data, self.element = data, element


class Builder:
    """Emits the body of one kernel; used as `with builder.function(kernel): ...`."""

    def __init__(self, cpu: CPU, pointer_bits: int) -> None:
        """`cpu` gives the vector width; indices are as wide as a pointer."""
        self.cpu = cpu
        self.index_type = f"int{pointer_bits}"
        self.buffers: dict[str, Buffer] = {}

    # -- structure ---------------------------------------------------------------

    def function(self, kernel: Kernel, body: Any) -> Any:
        """The PrimFunc of `kernel` in the plain C ABI; `body(builder)` emits the work.

        It returns 0, or -1 without touching anything where a pointer is null or not
        aligned to its element (the arena: to 64 bytes). An assertion is TVM's way to
        return -1; its call into TVM's runtime is taken out in `kernels.codegen.lower`.
        LLVM is told that no two buffers overlap, but the pair of which one may be in place.
        """
        with IRBuilder() as ir, T.prim_func(is_private=False, s_tir=False):
            T.func_name(kernel.symbol)
            pointers = [
                (operand.name, T.arg(operand.name, T.ptr(stored_as(operand.dtype))), operand.dtype)
                for operand in kernel.operands
            ]
            arena = T.arg("arena", T.ptr("float32"))
            T.func_ret(tirx.const(0, "int32").ty)
            T.func_attr(
                {
                    "calling_conv": 0,
                    "tirx.noalias": not kernel.in_place,
                    "global_symbol": kernel.symbol,
                }
            )
            checks = [(pointer, dtype.bytes) for _, pointer, dtype in pointers]
            if kernel.arena_bytes:
                checks.append((arena, ARENA_ALIGNMENT))
            with T.Assert(self._usable(checks), "unusable pointer"):
                pass
            pair = {kernel.in_place, kernel.output.name} if kernel.in_place else set()
            for operand, (name, pointer, _) in zip(kernel.operands, pointers, strict=True):
                # TVM takes pointers that are bound for such as may be the same, and parameters
                # for such as are not (CodeGenLLVM::AddAliasInfo), even without `tirx.noalias`.
                place = T.bind(pointer) if name in pair else pointer
                self.buffers[name] = self._declare(place, operand.stored, operand.dtype)
            if kernel.arena_bytes:
                self.buffers["arena"] = self._declare(arena, kernel.arena_bytes // 4)
            body(self)
            T.Return(tirx.const(0, "int32"))
        return ir.get()

    @staticmethod
    def _declare(pointer: Value, elements: int, dtype: ElementType = ElementType.FLOAT32) -> Buffer:
        return Buffer(T.decl_buffer((elements,), stored_as(dtype), data=pointer), dtype)

    def _usable(self, checks: list[tuple[Value, int]]) -> Value:
        """No address is null, nor has a bit set below its alignment."""
        unsigned = "u" + self.index_type
        zero = tirx.const(0, unsigned)
        usable = None
        for pointer, align in checks:
            address = tirx.Cast(unsigned, tirx.reinterpret("uint64", pointer))
            fine = tirx.all(address != zero, (address & tirx.const(align - 1, unsigned)) == zero)
            usable = fine if usable is None else tirx.all(usable, fine)
        return usable

    @contextmanager
    def loop(self, low: Any, high: Any) -> Iterator[Value]:
        """Run from `low` up to `high`, exclusive; no loop is made for a single round."""
        if isinstance(low, int) and isinstance(high, int) and high - low == 1:
            yield low
            return
        with T.serial(self.index(low), self.index(high)) as variable:
            yield variable

    def legalised(self, kernel: Kernel) -> None:
        """Emit what TVM's own importer makes of a kernel that is a node of ONNX.

        InputError where TVM cannot; that part is imported when it is first needed.
        """
        importlib.import_module("kernels.codegen.generic").emit(self, kernel)

    def either(self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Emit two branches: what `then` emits where the condition holds, else the other."""
        with T.If(condition):
            with T.Then():
                then()
            with T.Else():
                otherwise()

    def when(self, condition: Value, then: Callable[[], object]) -> None:
        """Emit what `then` emits, to be run only where the condition holds."""
        with T.If(condition), T.Then():
            then()

    # -- values ------------------------------------------------------------------

    def index(self, value: Any) -> Value:
        """An index expression from an int or an expression."""
        return tirx.const(value, self.index_type) if isinstance(value, int) else value

    def constant(self, value: float, lanes: int, dtype: str = "float32") -> Value:
        """`value`, rounded to a type, in every lane."""
        return self.splat(tirx.const(value, dtype), lanes)

    def like(self, value: float, other: Value) -> Value:
        """`value` in the type and the lanes of another value."""
        return self.constant(value, lanes_of(other), scalar_of(other))

    def element(self, value: float, buffer: Buffer, lanes: int) -> Value:
        """`value`, rounded to a buffer's elements, as it is stored there, in every lane."""
        stored = stored_as(buffer.element)
        array = np.array(value, numpy_type(buffer.element))
        number = array.view(stored) if buffer.element in STORED else array
        return self.constant(number.item(), lanes, stored)

    def equal(self, a: Value, b: Value) -> Value:
        """Whether the lanes are equal; never for NaN."""
        return tirx.EQ(a, b)

    def differ(self, a: Value, b: Value) -> Value:
        """Whether the lanes differ; always for NaN, for which TVM's own comparison says no."""
        return tirx.Not(tirx.EQ(a, b))

    @property
    def divides(self) -> bool:
        """Whether the processor surely divides integers of 32 and 64 bits by an instruction."""
        return self.index_type == "int64"

    def cast(self, value: Value, dtype: str) -> Value:
        """The lanes converted to another type of numbers, or cut to fewer bits."""
        return tirx.Cast(self._typed(dtype, value), value)

    def is_real(self, value: Value) -> bool:
        """Whether the lanes are floating-point numbers."""
        return scalar_of(value) == "float32"

    def wrapping(self, function: Callable[[Value, Value], Value], a: Value, b: Value) -> Value:
        """A sum, difference or product of integers that keeps the low bits, as two's complement does.

        TVM tells LLVM that integers never overflow, so it is asked for in twice the bits; LLVM
        finds that nobody needs the upper half.
        """
        scalar = scalar_of(a)
        wide = f"{scalar.rstrip('0123456789')}{2 * int(scalar.lstrip('uint'))}"
        return self.cast(function(self.cast(a, wide), self.cast(b, wide)), scalar)

    def sum(self, a: Value, b: Value) -> Value:
        """A + b, wrapping if they are integers."""
        return a + b if self.is_real(a) else self.wrapping(lambda x, y: x + y, a, b)

    def difference(self, a: Value, b: Value) -> Value:
        """A - b, wrapping if they are integers."""
        return a - b if self.is_real(a) else self.wrapping(lambda x, y: x - y, a, b)

    def product(self, a: Value, b: Value) -> Value:
        """A b, wrapping if they are integers."""
        return a * b if self.is_real(a) else self.wrapping(lambda x, y: x * y, a, b)

    def whole_quotient(self, a: Value, b: Value) -> Value:
        """A / b of integers, rounded towards zero; b must not be 0, nor the result beyond the type."""
        return tirx.truncdiv(a, b)

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar copied to every lane."""
        return value if lanes == 1 else tirx.Broadcast(value, lanes)

    def as_index(self, value: Value) -> Value:
        """An integer element as an index expression."""
        return tirx.Cast(self.index_type, value)

    def quotient(self, a: Any, b: int) -> Value:
        """A / b for an index expression that is not negative, rounded down."""
        return tirx.truncdiv(self.index(a), self.index(b))

    def float_of(self, value: Any) -> Value:
        """An integer index converted to a float32 scalar."""
        return tirx.Cast("float32", self.index(value))

    def real(self, value: Value) -> Value:
        """A whole element converted to float32, rounded: of 64 bits in halves, each with a sign.

        A 32-bit processor converts no more by itself.
        """
        if scalar_of(value) != "int64":
            return self.cast(value, "float32")
        value = self.let(value)
        low = self.let(tirx.Cast("int32", value))
        one, top = tirx.const(1, "int64"), tirx.const((1 << 31) - 1, "int64")
        twice = tirx.shift_right(value, one) - tirx.Cast(
            "int64", tirx.shift_right(low, tirx.const(1, "int32"))
        )
        high = self.let(tirx.shift_right(twice, tirx.const(31, "int64")))
        high = tirx.Select(high > top, top, high)  # 2^31 - 1 is rounded to the 2^31 that it stands for
        scaled = tirx.Cast("float32", tirx.Cast("int32", high)) * tirx.const(2.0**32, "float32")
        return scaled + tirx.Cast("float32", low)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """A * b + c: rounded once where the processor fuses, else after each operation."""
        if not self.cpu.fma:
            return a * b + c
        return tirx.call_llvm_pure_intrin(a.ty.dtype, "llvm.fma", a, b, c)

    def sqrt(self, value: Value) -> Value:
        """The square root, correctly rounded."""
        return tirx.call_llvm_pure_intrin(value.ty.dtype, "llvm.sqrt", value)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """`a` where the condition holds, else `b`, lane by lane."""
        return tirx.Select(condition, a, b)

    def as_int(self, value: Value) -> Value:
        """The bits of float32 lanes as int32 lanes."""
        return tirx.reinterpret(self._typed("int32", value), value)

    def as_float(self, value: Value) -> Value:
        """The bits of int32 lanes as float32 lanes."""
        return tirx.reinterpret(self._typed("float32", value), value)

    def as_stored(self, buffer: Buffer, value: Value) -> Value:
        """The bits of the lanes as a buffer's elements are stored."""
        stored = stored_as(buffer.element)
        return value if scalar_of(value) == stored else tirx.reinterpret(self._typed(stored, value), value)

    def integer(self, value: int, lanes: int) -> Value:
        """An int32 in every lane."""
        return self.splat(tirx.const(value, "int32"), lanes)

    @staticmethod
    def _typed(scalar: str, like: Value) -> str:
        lanes = lanes_of(like)
        return scalar if lanes == 1 else f"{scalar}x{lanes}"

    @staticmethod
    def lanes(value: Value) -> int:
        """How many lanes a value has."""
        return lanes_of(value)

    @staticmethod
    def scalar(value: Value) -> str:
        """The type of a lane, as `cast` and `registers` name it."""
        return scalar_of(value)

    @staticmethod
    def is_signed(value: Value) -> bool:
        """Whether the lanes are integers with a sign."""
        return scalar_of(value).startswith("int")

    def lane(self, vector: Value, number: int) -> Value:
        """One lane of a vector, as a scalar."""
        return vector if lanes_of(vector) == 1 else tirx.Shuffle([vector], [number])

    def halves(self, vector: Value) -> tuple[Value, Value]:
        """The first and the second half of the lanes."""
        lanes = lanes_of(vector)
        low, high = range(lanes // 2), range(lanes // 2, lanes)
        return tirx.Shuffle([vector], list(low)), tirx.Shuffle([vector], list(high))

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two index expressions, folded when both are ints."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return tirx.min(self.index(a), self.index(b))

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two index expressions, folded when both are ints."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return tirx.max(self.index(a), self.index(b))

    def let(self, value: Value) -> Value:
        """Compute `value` once, where it is used more than once.

        It goes through a local buffer, which LLVM makes a register again: through TVM's own
        bindings its analysis takes time exponential in the length of a chain of them.
        """
        lanes, scalar = lanes_of(value), scalar_of(value)
        kept = Buffer(T.alloc_buffer((lanes,), scalar, scope="local"))
        self.store(kept, 0, value)
        return self.load(kept, 0, lanes)

    # -- memory ------------------------------------------------------------------

    def load(self, buffer: Buffer, index: Any, lanes: int) -> Value:
        """`lanes` consecutive elements from `index` on."""
        return buffer.data[self._range(index, lanes)]

    def store(self, buffer: Buffer, index: Any, value: Value) -> None:
        """Write the lanes of `value` from `index` on."""
        T.buffer_store(buffer.data, value, [self._range(index, lanes_of(value))])

    def read(self, buffer: Buffer, index: Any, lanes: int) -> Value:
        """What arithmetic takes of consecutive elements: float32 for the halves."""
        value = self.load(buffer, index, lanes)
        widen = halves.WIDEN.get(buffer.element)
        return value if widen is None else self.let(widen(self, self.let(value)))

    def write(self, buffer: Buffer, index: Any, value: Value) -> None:
        """Store what arithmetic gives: rounded once for the halves, 1 or 0 for a condition."""
        narrow = halves.NARROW.get(buffer.element)
        if narrow is not None:
            value = narrow(self, self.let(value))
        elif scalar_of(value) == "bool":
            lanes = lanes_of(value)
            value = tirx.Select(value, self.constant(1, lanes, "uint8"), self.constant(0, lanes, "uint8"))
        self.store(buffer, index, value)

    def prefetch(self, buffer: Buffer, index: Any, *, write: bool = False) -> None:
        """Ask for the cache line that holds an element; beyond the buffer it does nothing."""
        address = tirx.address_of(buffer.data[self.index(index)])
        numbers = (tirx.const(value, "int32") for value in (int(write), 3, 1))
        T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *numbers))

    def _range(self, index: Any, lanes: int) -> Value:
        base = self.index(index)
        return base if lanes == 1 else tirx.Ramp(base, tirx.const(1, self.index_type), lanes)

    def registers(self, widths: list[int], dtype: str = "float32") -> Registers:
        """Mutable vectors of the given lanes, which LLVM keeps in registers."""
        return Registers(self, widths, dtype)


def empty_function(symbol: str, parameters: Iterable[str]) -> Any:
    """A PrimFunc of pointers that does nothing: a frame for a function written otherwise."""
    with IRBuilder() as ir, T.prim_func(is_private=False, s_tir=False):
        T.func_name(symbol)
        for name in parameters:
            T.arg(name, T.ptr("float32"))
        T.func_ret(tirx.const(0, "int32").ty)
        T.func_attr({"calling_conv": 0, "global_symbol": symbol})
        T.Return(tirx.const(0, "int32"))
    return ir.get()


class Registers:
    """Accumulators: a local array that is only accessed at constant places."""

    def __init__(self, builder: Builder, widths: list[int], dtype: str = "float32") -> None:
        """One vector for each entry of `widths`."""
        self._builder = builder
        self._widths = widths
        self._offsets = [sum(widths[:number]) for number in range(len(widths))]
        self._buffer = Buffer(T.alloc_buffer((sum(widths),), dtype, scope="local"))

    def __getitem__(self, number: int) -> Value:
        """The vector of that number."""
        return self._builder.load(self._buffer, self._offsets[number], self._widths[number])

    def __setitem__(self, number: int, value: Value) -> None:
        """Replace the vector of that number."""
        self._builder.store(self._buffer, self._offsets[number], value)


def lanes_of(value: Value) -> int:
    """How many lanes a value has."""
    return int(value.ty.dtype.lanes)


def scalar_of(value: Value) -> str:
    """TVM's name for the type of a lane."""
    return str(value.ty.dtype.with_lanes(1))


def stored_as(dtype: ElementType) -> str:
    """TVM's name for an element in memory."""
    return STORED.get(dtype, dtype.value)
