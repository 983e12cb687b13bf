"""The language in which schedules are written: a thin layer over TVM's IR builder.

Schedules and operators get a `Builder` and values that they may add, multiply and
compare; they never see TVM. Vectors are explicit (a ramp of `lanes` elements), never
made by a vectorisation pass: for vector-length-agnostic targets TVM's pass would turn
them into predicated loops through memory, while LLVM lowers fixed-length ones well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from kernels.plan import ARENA_ALIGNMENT, Kernel
from toolchains.target import CPU

Value = Any
"""A TVM expression: float32, an integer index or a condition, with one or more lanes."""


class Buffer:
    """A flat array of one element type: an operand, a part of the arena, or registers."""

    def __init__(self, data: Value) -> None:
        """Wrap a declared TVM buffer."""
        self.data = data


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
        """
        with IRBuilder() as ir, T.prim_func(is_private=False, s_tir=False):
            T.func_name(kernel.symbol)
            pointers = [
                (operand.name, T.arg(operand.name, T.ptr(operand.dtype.value)), operand.dtype)
                for operand in kernel.operands
            ]
            arena = T.arg("arena", T.ptr("float32"))
            T.func_ret(tirx.const(0, "int32").ty)
            T.func_attr({"calling_conv": 0, "tirx.noalias": True, "global_symbol": kernel.symbol})
            checks = [(pointer, dtype.bytes) for _, pointer, dtype in pointers]
            if kernel.arena_bytes:
                checks.append((arena, ARENA_ALIGNMENT))
            with T.Assert(self._usable(checks), "unusable pointer"):
                pass
            for operand, (name, pointer, _) in zip(kernel.operands, pointers, strict=True):
                self.buffers[name] = self._declare(pointer, operand.stored, operand.dtype.value)
            if kernel.arena_bytes:
                self.buffers["arena"] = self._declare(arena, kernel.arena_bytes // 4)
            body(self)
            T.Return(tirx.const(0, "int32"))
        return ir.get()

    @staticmethod
    def _declare(pointer: Value, elements: int, dtype: str = "float32") -> Buffer:
        return Buffer(T.decl_buffer((elements,), dtype, data=pointer))

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

    def either(self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Emit two branches: what `then` emits where the condition holds, else the other."""
        with T.If(condition):
            with T.Then():
                then()
            with T.Else():
                otherwise()

    # -- values ------------------------------------------------------------------

    def index(self, value: Any) -> Value:
        """An index expression from an int or an expression."""
        return tirx.const(value, self.index_type) if isinstance(value, int) else value

    def constant(self, value: float, lanes: int) -> Value:
        """`value`, rounded to float32, in every lane."""
        return self.splat(tirx.const(value, "float32"), lanes)

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
        if str(value.ty.dtype) != "int64":
            return tirx.Cast("float32", value)
        value = self.let(value)
        low = self.let(tirx.Cast("int32", value))
        high = tirx.shift_right(value - tirx.Cast("int64", low), tirx.const(32, "int64"))
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
        lanes = lanes_of(value)
        scalar = str(value.ty.dtype.with_lanes(1))
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

    def prefetch(self, buffer: Buffer, index: Any, *, write: bool = False) -> None:
        """Ask for the cache line that holds an element; beyond the buffer it does nothing."""
        address = tirx.address_of(buffer.data[self.index(index)])
        numbers = (tirx.const(value, "int32") for value in (int(write), 3, 1))
        T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *numbers))

    def _range(self, index: Any, lanes: int) -> Value:
        base = self.index(index)
        return base if lanes == 1 else tirx.Ramp(base, tirx.const(1, self.index_type), lanes)

    def registers(self, widths: list[int]) -> Registers:
        """Mutable vectors of the given lanes, which LLVM keeps in registers."""
        return Registers(self, widths)


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

    def __init__(self, builder: Builder, widths: list[int]) -> None:
        """One vector for each entry of `widths`."""
        self._builder = builder
        self._widths = widths
        self._offsets = [sum(widths[:number]) for number in range(len(widths))]
        self._buffer = Buffer(T.alloc_buffer((sum(widths),), "float32", scope="local"))

    def __getitem__(self, number: int) -> Value:
        """The vector of that number."""
        return self._builder.load(self._buffer, self._offsets[number], self._widths[number])

    def __setitem__(self, number: int, value: Value) -> None:
        """Replace the vector of that number."""
        self._builder.store(self._buffer, self._offsets[number], value)


def lanes_of(value: Value) -> int:
    """How many lanes a value has."""
    return int(value.ty.dtype.lanes)
