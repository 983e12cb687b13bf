"""What object files really hold, read with pyelftools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elftools.dwarf.callframe import FDE
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from kernels.errors import KernfitError
from kernels.manifest import Measured
from toolchains.target import Target

ALLOWED_UNDEFINED = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", ".TOC."}
"""What a library may leave to its user: three functions, and names of the linker itself."""

ADDRESSES = {".toc"}
"""Sections of addresses that only the linker fills (64-bit ELF V2 ABI for Power, 2.3.2)."""


def measure(folder: Path, symbol: str, target: Target) -> Measured:
    """Sizes of a kernel; KernfitError where its object breaks a promise of the C ABI."""
    with (folder / f"{symbol}.o").open("rb") as stream:
        elf = ELFFile(stream)
        _inspect(elf, symbol, target)
        code = constants = 0
        for section in elf.iter_sections():
            if not section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                continue
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
                code += section["sh_size"]
            else:
                constants += section["sh_size"]
    return Measured(
        code_bytes=code, constant_bytes=constants, stack_bytes=stack_bytes(folder / f"{symbol}.frame.o")
    )


def _inspect(elf: ELFFile, symbol: str, target: Target) -> None:
    for fault in _faults(elf, symbol, target):
        raise KernfitError(f"{symbol}.o for {target.name} {fault}; this is a bug of kernfit")


def _faults(elf: ELFFile, symbol: str, target: Target) -> Iterator[str]:
    """Whatever the object has that the C ABI forbids."""
    if elf["e_machine"] != target.elf_machine or elf.elfclass != target.pointer_bits:
        yield f"is {elf['e_machine']}, {elf.elfclass} bits"
    if elf.little_endian != (target.endianness == "little"):
        yield "has the wrong byte order"
    for entry in elf.get_section_by_name(".symtab").iter_symbols():
        if entry["st_info"]["bind"] == "STB_LOCAL" or not entry.name:
            continue
        if entry["st_shndx"] != "SHN_UNDEF" and entry.name != symbol:
            yield f"defines the symbol {entry.name}"
        elif entry["st_shndx"] == "SHN_UNDEF" and entry.name not in ALLOWED_UNDEFINED:
            yield f"needs the symbol {entry.name}"
    writable = SH_FLAGS.SHF_WRITE | SH_FLAGS.SHF_ALLOC
    for section in elf.iter_sections():
        if section.name in ADDRESSES:
            continue
        if section["sh_flags"] & writable == writable and section["sh_size"]:
            yield f"has writable data in {section.name}"


def stack_bytes(path: Path) -> int:
    """The deepest stack frame, from the unwind table: the largest offset of the caller's frame."""
    deepest = 0
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
        if not dwarf.has_CFI():
            raise KernfitError(f"{path.name} has no unwind table; this is a bug of kernfit")
        for entry in dwarf.CFI_entries():
            if isinstance(entry, FDE):
                for row in entry.get_decoded().table:
                    offset = row["cfa"].offset
                    if offset is not None:
                        deepest = max(deepest, offset)
    return deepest
