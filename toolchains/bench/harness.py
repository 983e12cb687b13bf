"""Calls of C functions on memory of ours, and their timing by `harness.c`."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.errors import EngineError
from toolchains.limits import limit
from toolchains.link import zig_environment
from toolchains.process import run
from toolchains.target import Target

Array = NDArray[Any]

SOURCE = Path(__file__).parent / "harness.c"
PROBE_SECONDS = 60e-6
SAMPLE_SECONDS = 100e-6
"""A sample repeats its calls for at least so long: the clock takes 0.3 us to read."""
REGISTERS = {"x86_64": "v", "aarch64": "w", "riscv64": "vr", "ppc64le": "wa", "s390x": "v"}
"""GCC's constraint for a vector register ("Constraints for Particular Machines")."""
INTEGERS = 12


class _Call(ctypes.Structure):
    _fields_ = (
        ("function", ctypes.c_void_p),
        ("integers", ctypes.c_int64 * INTEGERS),
        ("floats", ctypes.c_float * 2),
    )


class _Sample(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_double), ("before", ctypes.c_double), ("after", ctypes.c_double))


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call: a function's address, its integers and pointers in order, its floats in order.

    `alive` is what must outlive it.
    """

    function: int
    integers: tuple[int, ...]
    floats: tuple[float, ...] = ()
    alive: Any = None


class Contestant(msgspec.Struct, kw_only=True, eq=False):
    """What computes a kernel: the calls of one computation, and the output they write.

    `alive` holds what must outlive the calls: their operands. `before` is what a computation
    finds in the output, where it adds to it.
    """

    name: str
    calls: Sequence[Call]
    output: Array
    alive: Any = None
    before: Array | None = None
    table: Any = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one computation, and the core's peak around it, in operations per second."""

    seconds: float
    peak: float


HUGE = 1 << 21
"""Bytes of a huge page; without them it is luck which sets of a cache the pages of an array share."""
STAGGER = 429 * 64
"""Arrays begin so many bytes further into their pages than the one before: in other cache sets."""
_placed = count()


def aligned(array: Array) -> Array:
    """A contiguous float32 copy that begins at a cache line, in huge pages where Linux has them."""
    first = next(_placed) * STAGGER % HUGE
    size = -(-(first + array.size * 4 + 1) // HUGE) * HUGE + HUGE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without transparent huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, dtype=np.uint8)
    first += -whole.ctypes.data % HUGE
    place = whole[first : first + array.size * 4].view(np.float32).reshape(array.shape)
    place[...] = array
    return place


def address(function: Any) -> int:
    """The address of a C function."""
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


class Harness:
    """The compiled harness of this machine."""

    def __init__(self, target: Target, folder: Path) -> None:
        """Compile `harness.c` for the target's vectors into `folder`; EngineError if that fails."""
        width = max(4, target.cpu.vector_bits // 8)
        constraint = REGISTERS.get(target.family, "f")
        self._target, self._folder = target, folder
        self._spreading: dict[int, Any] = {}
        self._library = self._compiled(
            SOURCE, f"-DVECTOR_BYTES={width}", f'-DVECTOR_REGISTER="{constraint}"'
        )
        self._library.probe.restype = self._library.bandwidth.restype = ctypes.c_double
        rounds = 100_000
        seconds = [2.0 * width / 4 * 10 * rounds / self._probe(rounds) for _ in range(5)]
        self._rounds = max(1, int(rounds * PROBE_SECONDS / sorted(seconds)[2]))

    def _compiled(self, source: Path, *words: str) -> Any:
        """The library that a source file is; EngineError if it does not compile."""
        library = self._folder / f"{source.stem}.so"
        flags = (*self._target.c.zig_flags, "-O2", "-std=gnu11", "-ffp-contract=fast", "-shared", "-fPIC")
        compiled = run(
            [sys.executable, "-m", "ziglang", "cc", *flags, *words, "-o", str(library), str(source)],
            timeout=limit("tool"),
            env=zig_environment(),
        )
        if compiled.status != 0:
            raise EngineError(f"the harness does not compile: {compiled.output}")
        return ctypes.CDLL(str(library))

    def call(self, function: int, integers: tuple[int, ...]) -> Call:
        """A call of a function with any number of integers; many are passed by a function of ours."""
        if len(integers) <= INTEGERS:
            return Call(function=function, integers=integers)
        count = len(integers)
        if count not in self._spreading:
            source = self._folder / f"spread{count}.c"
            types, values = ", ".join(["long"] * count), ", ".join(f"n[{i}]" for i in range(1, count + 1))
            source.write_text(f"void spread(const long *n) {{ ((void (*)({types}))n[0])({values}); }}\n")
            self._spreading[count] = self._compiled(source).spread
        block = (ctypes.c_int64 * (count + 1))(function, *integers)
        spread = address(self._spreading[count])
        return Call(function=spread, integers=(ctypes.addressof(block),), alive=block)

    def _probe(self, rounds: int) -> float:
        return float(self._library.probe(ctypes.c_int64(rounds)))

    def peak(self) -> float:
        """Operations per second of the core, at this moment."""
        return self._probe(self._rounds)

    def bandwidth(self, size: int) -> float:
        """Bytes per second of reading a block of `size` bytes over and over."""
        block = aligned(np.ones(size // 4, dtype=np.float32))
        repeats = max(1, (64 << 20) // size)
        found = [
            self._library.bandwidth(
                ctypes.c_void_p(block.ctypes.data), ctypes.c_int64(size), ctypes.c_int64(repeats)
            )
            for _ in range(5)
        ]
        return float(sorted(found)[2])

    def compute(self, contestant: Contestant) -> None:
        """Compute once."""
        if contestant.before is not None:
            contestant.output[...] = contestant.before
        self._library.run(self._table(contestant), ctypes.c_int64(len(contestant.calls)))

    @staticmethod
    def _table(contestant: Contestant) -> Any:
        if contestant.table is None:
            contestant.table = (_Call * len(contestant.calls))(
                *(
                    _Call(call.function, (ctypes.c_int64 * INTEGERS)(*call.integers), call.floats)
                    for call in contestant.calls
                )
            )
        return contestant.table

    def sample(self, contestant: Contestant, repeats: int) -> Sample:
        """Time `repeats` computations in a row, after one that is not timed."""
        result = _Sample()
        self._library.sample(
            self._table(contestant),
            ctypes.c_int64(len(contestant.calls)),
            ctypes.c_int64(repeats),
            ctypes.c_int64(self._rounds),
            ctypes.byref(result),
        )
        return Sample(seconds=result.seconds, peak=(result.before + result.after) / 2)

    def each(self, contestant: Contestant) -> tuple[list[float], float]:
        """Seconds of every call of one computation, in their order, and the core's peak around it."""
        found = (ctypes.c_double * len(contestant.calls))()
        before = self.peak()
        self._library.each(self._table(contestant), ctypes.c_int64(len(found)), found)
        return list(found), (before + self.peak()) / 2
