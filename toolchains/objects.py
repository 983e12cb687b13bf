"""Object files that hold data alone, written by us: a network's weights may be 500 MB."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from elftools.elf.elffile import ELFFile

from kernels.plan import ARENA_ALIGNMENT

SHF_ALLOC = 2
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB = 1, 2, 3
STV_DEFAULT, STV_HIDDEN = 0, 2
GLOBAL_OBJECT = 1 << 4 | 1
"""STB_GLOBAL, STT_OBJECT."""
RODATA, SYMTAB, STRTAB, NAMES = 1, 3, 4, 5
"""Numbers of the sections; 2 is the note that the stack need not be executable."""


def data_object(data: Path, symbol: str, like: Path, path: Path, *, hidden: bool) -> None:
    """Write an ELF object whose read-only section is the file `data`, under the name `symbol`.

    Class, byte order, machine and flags are those of the object `like`. Layout: header,
    data, symbols, names, section headers (System V ABI, chapters 4 and 5).
    """
    with like.open("rb") as stream:
        ident = stream.read(16)
        elf = ELFFile(stream)
        wide, order = elf.elfclass == 64, "<" if elf.little_endian else ">"  # noqa: PLR2004 - bits
        stream.seek(18)
        (machine,) = struct.unpack(f"{order}H", stream.read(2))
        flags = elf["e_flags"]
    size = data.stat().st_size
    visibility = STV_HIDDEN if hidden else STV_DEFAULT
    strings = b"\0" + symbol.encode("ascii") + b"\0"
    names = b"\0.rodata\0.note.GNU-stack\0.symtab\0.strtab\0.shstrtab\0"
    if wide:
        header_bytes, entry_bytes, section_bytes, word = 64, 24, 64, "Q"
        entry = struct.pack(f"{order}IBBHQQ", 1, GLOBAL_OBJECT, visibility, RODATA, 0, size)
    else:
        header_bytes, entry_bytes, section_bytes, word = 52, 16, 40, "I"
        entry = struct.pack(f"{order}IIIBBH", 1, 0, size, GLOBAL_OBJECT, visibility, RODATA)
    symbols = bytes(entry_bytes) + entry
    data_at = ARENA_ALIGNMENT
    symbols_at = data_at + -(-size // 8) * 8
    strings_at = symbols_at + len(symbols)
    names_at = strings_at + len(strings)
    headers_at = -(-(names_at + len(names)) // 8) * 8

    def section(
        name: str, kind: int, at: int, length: int, align: int, *, attributes: int = 0, each: int = 0
    ) -> bytes:
        link, information = (STRTAB, 1) if kind == SHT_SYMTAB else (0, 0)
        offset = names.index(b"\0" + name.encode() + b"\0") + 1 if name else 0
        return struct.pack(
            f"{order}II{word}{word}{word}{word}II{word}{word}",
            *(offset, kind, attributes, 0, at, length, link, information, align, each),
        )

    sections = (
        section("", 0, 0, 0, 0),
        section(".rodata", SHT_PROGBITS, data_at, size, ARENA_ALIGNMENT, attributes=SHF_ALLOC),
        section(".note.GNU-stack", SHT_PROGBITS, data_at, 0, 1),
        section(".symtab", SHT_SYMTAB, symbols_at, len(symbols), 8 if wide else 4, each=entry_bytes),
        section(".strtab", SHT_STRTAB, strings_at, len(strings), 1),
        section(".shstrtab", SHT_STRTAB, names_at, len(names), 1),
    )
    header = ident + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(1, machine, 1, 0, 0, headers_at, flags, header_bytes, 0, 0),
        *(section_bytes, len(sections), NAMES),
    )
    with path.open("wb") as out:
        out.write(header.ljust(data_at, b"\0"))
        with data.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
        out.write(bytes(symbols_at - data_at - size) + symbols + strings + names)
        out.write(bytes(headers_at - names_at - len(names)) + b"".join(sections))
