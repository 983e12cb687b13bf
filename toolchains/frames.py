"""The stack that functions take, as their unwind tables tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from elftools.dwarf.callframe import FDE
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.elf.elffile import ELFFile

from kernels.errors import KernfitError

STACK_POINTERS = {
    "EM_X86_64": 7,
    "EM_386": 4,
    "EM_AARCH64": 31,
    "EM_ARM": 13,
    "EM_RISCV": 2,
    "EM_PPC64": 1,
    "EM_S390": 15,
    "EM_LOONGARCH": 3,
}
"""DWARF's numbers of the registers: each architecture's ELF supplement."""
RED_ZONES = {"EM_X86_64": 128, "EM_PPC64": 288}
"""Bytes below the stack pointer that a function which calls no other may use, without a word in
its table: System V ABI for AMD64, 3.2.2; 64-bit ELF V2 ABI for Power, 2.2.2.4."""
VECTOR_BYTES_REGISTER = 4096 + 0xC22
"""vlenb, the length of RISC-V's vector registers: RISC-V DWARF Specification 1.0, table 1."""


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, and beside them vector registers of the running processor's own length."""

    bytes: int = 0
    vectors: int = 0

    def __add__(self, other: Stack) -> Stack:
        """The stack of a function and of one that it calls."""
        return Stack(bytes=self.bytes + other.bytes, vectors=self.vectors + other.vectors)

    def at(self, vector_bits: int) -> int:
        """Bytes in all, where vectors are that long."""
        return self.bytes + self.vectors * (vector_bits // 8)


def deepest(stacks: Iterable[Stack]) -> Stack:
    """No stack of these is deeper, whatever the length of vectors."""
    found = [Stack(), *stacks]
    return Stack(bytes=max(each.bytes for each in found), vectors=max(each.vectors for each in found))


def stack_of(path: Path) -> Stack:
    """The deepest stack of an object's first function: its frame, and the largest that it calls.

    The others of an object are called by its first, and by nobody else. A frame is the largest
    distance of the caller's from the stack pointer, and what the ABI allows below that. Raises
    KernfitError where the table tells none.
    """
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
        if not dwarf.has_CFI():
            raise KernfitError(f"{path.name} has no unwind table; this is a bug of kernfit")
        parser = DWARFExprParser(dwarf.structs)
        pointer = STACK_POINTERS[elf["e_machine"]]
        entries = [entry for entry in dwarf.CFI_entries() if isinstance(entry, FDE)]
        first, *others = [
            deepest(_distance(row["cfa"], pointer, parser, path) for row in entry.get_decoded().table)
            for entry in entries
        ]
        below = Stack(bytes=RED_ZONES.get(elf["e_machine"], 0))
    return first + deepest(others) + below


def _distance(rule: Any, pointer: int, parser: DWARFExprParser, path: Path) -> Stack:
    if rule.expr is None and rule.reg == pointer:
        return Stack(bytes=rule.offset)
    if rule.expr is not None:
        operations = [(each.op_name, each.args) for each in parser.parse_expr(rule.expr)]
        none, one = (_evaluated(operations, pointer, length) for length in (0, 1))
        if none is not None and one is not None:
            return Stack(bytes=none, vectors=one - none)
    raise KernfitError(
        f"{path.name} keeps its frame otherwise than by the stack pointer; this is a bug of kernfit"
    )


ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "DW_OP_plus": lambda a, b: a + b,
    "DW_OP_minus": lambda a, b: a - b,
    "DW_OP_mul": lambda a, b: a * b,
}


def _evaluated(operations: Iterable[tuple[str, list[Any]]], pointer: int, length: int) -> int | None:
    """A DWARF expression with the stack pointer at 0 and vectors of `length` bytes.

    None if it is none of sums, and products with constants.
    """
    stack: list[int] = []
    for name, words in operations:
        if name in ARITHMETIC and len(stack) > 1:
            last = stack.pop()
            stack.append(ARITHMETIC[name](stack.pop(), last))
        elif name == f"DW_OP_breg{pointer}":
            stack.append(words[0])
        elif name == "DW_OP_bregx" and words == [VECTOR_BYTES_REGISTER, 0]:
            stack.append(length)
        elif name.startswith("DW_OP_const"):
            stack.append(words[0])
        elif name.startswith("DW_OP_lit"):
            stack.append(int(name.removeprefix("DW_OP_lit")))
        else:
            return None
    return stack[-1] if stack else None
