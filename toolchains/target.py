"""Targets: machines to generate for, each described by one TOML file in `targets/`."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from kernels.errors import InputError, UsageError, did_you_mean

TARGETS = Path(__file__).parent / "targets"

NATIVE = "native"
"""Stands beside QEMU's names of processors for this machine's own."""

ALIASES = {
    "i386": "i686",
    "i586": "i686",
    "x86": "i686",
    "ppc64el": "ppc64le",
    "powerpc64le": "ppc64le",
    "loong64": "loongarch64",
    "x86-64-v4": "x86_64-avx512",
    "amd64": "x86_64",
    "x86-64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "armv8": "aarch64",
    "armhf": "armv7",
    "armv7l": "armv7",
    "arm": "armv7",
    "rv64": "riscv64",
    "rv64gc": "riscv64",
    "rv64gcv": "riscv64-rvv",
    "s390": "s390x",
    "zarch": "s390x",
}
"""Other common names of targets: `uname -m`, Debian's, GNU's."""


Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=1024)]
Bits = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
"""Numbers of a processor: what there is at least one of, what there may be none of, and vectors, which
RISC-V lets have 65,536 bits (V extension 1.0, section 2)."""


class Cache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One level of the data cache, as a single core sees it."""

    bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
    ways: Count
    line: Annotated[int, msgspec.Meta(ge=16, le=4096)]

    def __post_init__(self) -> None:
        """ValueError for a cache that is smaller than one of its sets."""
        if self.bytes < self.ways * self.line:
            raise ValueError(f"{self.bytes} bytes do not hold {self.ways} lines of {self.line}")


class CPU(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers from which schedules are computed.

    `vector_bits` is the width that code may rely on, 0 for a scalar machine, and
    `vector_registers` counts the registers that hold floating-point accumulators.
    `register_group` is the number of registers that one instruction may treat as one
    (RISC-V's LMUL). `fma_latency` is in cycles and `fma_per_cycle` counts vector
    instructions. `lane_operand` says that a multiply-add takes one lane of a vector as its
    scalar factor. `scalable` vectors may be longer than `vector_bits`; the running processor
    tells their length. `issue` is how many instructions begin in a cycle, 1 where schedules
    shall issue as few as possible. `indexed` says that a load can also advance its pointer
    or add an index, `paired_loads` that one brings two vectors. `unroll` steps make a round
    of the innermost loop, as many as LLVM schedules without spilling, and `spare_registers`
    are those that a tile leaves to factors and to its allocator. `l3` is a core's share of a
    third level, if there is one; `l2_stream` are the bytes that the second delivers in a
    cycle while the core computes, 0 where that is no limit. `prefetch` says that asking for
    lines ahead of their use pays, `follows_strides` that the hardware does so for lines
    at equal distances by itself.
    """

    source: str
    vector_bits: Bits
    vector_registers: Amount
    fma: bool
    fma_latency: Count
    fma_per_cycle: Count
    l1: Cache
    l2: Cache
    l3: Cache | None = None
    register_group: Count = 1
    lane_operand: bool = False
    memory_operand: bool = False
    scalable: bool = False
    indexed: bool = True
    paired_loads: bool = False
    issue: Count = 1
    l2_stream: Amount = 0
    unroll: Count = 1
    spare_registers: Amount = 2
    prefetch: bool = False
    follows_strides: bool = True
    flushes_subnormals: bool = False

    @property
    def lanes(self) -> int:
        """float32 lanes of one vector operand; 1 on a scalar machine."""
        return max(1, self.vector_bits // 32) * self.register_group

    def registers_of(self, width: int) -> int:
        """How many registers `width` float32 lanes take."""
        return max(1, -(-width * 32 // self.vector_bits)) if self.vector_bits else width


class LLVM(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What LLVM is told: triple, processor, features, floating-point ABI.

    `multiply_add` is a regular expression that finds, in LLVM's assembly, the instruction
    that inner loops ought to be made of: the multiplication, where the two are separate.
    `attributes` are given to functions, those that ask for small code only where no integers are
    divided (LLVM Language Reference, "Function Attributes"). Where "no-realign-stack" is among
    them, frames are kept by the stack pointer, so that unwind tables tell their size.
    """

    triple: str
    cpu: str
    multiply_add: str
    features: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    abi: str = ""
    float_abi: str = ""


class C(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """C compilers: GNU's prefix, its Debian package, and zig's name of the target."""

    triplet: str
    package: str
    libc_package: str
    zig: str
    gcc_flags: tuple[str, ...] = ()
    zig_flags: tuple[str, ...] = ()
    linker: str


class Qemu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """User-mode emulator and the processors (`-cpu`) that kernels are checked on."""

    binary: str
    cpus: tuple[str, ...]
    minimum: tuple[int, int] = (7, 2)


class Disassembler(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Capstone's names of the instruction set (CS_ARCH_*, CS_MODE_*).

    `vector` is a regular expression that finds a vector instruction in what Capstone
    writes: the mnemonic, a space, the operands. It is empty on a scalar machine.
    """

    arch: str
    modes: tuple[str, ...]
    vector: str = ""


class Native(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine that runs the target's code itself: `uname -m`, and flags of /proc/cpuinfo.

    Kernels are checked on it where QEMU cannot run them; else it is asked about what fails.
    """

    machine: str
    flags: tuple[str, ...]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is known about one target."""

    name: str
    title: str
    family: str
    variant: str = ""
    endianness: Literal["little", "big"] = "little"
    pointer_bits: Literal[32, 64] = 64
    elf_machine: str
    cpu: CPU
    llvm: LLVM
    c: C
    qemu: Qemu
    disassembler: Disassembler
    native: Native | None = None

    @property
    def checked_on(self) -> tuple[str, ...]:
        """Every processor that kernels are checked on: QEMU's names, or `native` where it has none."""
        return self.qemu.cpus or ((NATIVE,) if self.native else ())

    def on_first_emulated(self) -> Target:
        """Itself, but checked on the first of QEMU's processors alone, or on none if there is none."""
        return msgspec.structs.replace(
            self, qemu=msgspec.structs.replace(self.qemu, cpus=self.qemu.cpus[:1]), native=None
        )

    @property
    def longest_vector_bits(self) -> int:
        """The longest vectors that kernels are checked with."""
        lengths = (re.search(r"\bvlen=(\d+)", cpu) for cpu in self.qemu.cpus)
        return max(self.cpu.vector_bits, *(int(found[1]) for found in lengths if found), 0)

    @property
    def byte_order(self) -> Literal["<", ">"]:
        """NumPy's character for the target's byte order."""
        return "<" if self.endianness == "little" else ">"


@cache
def all_targets(folder: Path = TARGETS) -> dict[str, Target]:
    """Every target by name, sorted; InputError names the file that does not fit."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def _read(path: Path) -> Target:
    try:
        target = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Target)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: {error}") from error
    if target.name != path.stem:
        raise InputError(f"{path.name}: name is '{target.name}', but the file says '{path.stem}'")
    return target


def find_target(word: str) -> Target:
    """The target of that name or alias; UsageError otherwise."""
    targets = all_targets()
    name = ALIASES.get(word.lower(), word.lower())
    if name not in targets:
        raise UsageError(f"unknown target '{word}'{did_you_mean(name, targets)}")
    return targets[name]


def find_targets(words: str) -> tuple[Target, ...]:
    """Targets from a name, a comma-separated list, or `all`; UsageError if one is unknown."""
    if words.strip() == "all":
        return tuple(all_targets().values())
    found = [find_target(word.strip()) for word in words.split(",") if word.strip()]
    if not found:
        raise UsageError("--arch names no target; see `invoke targets`")
    return tuple(dict.fromkeys(found))
