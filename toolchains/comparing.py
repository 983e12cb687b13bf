"""Where two files of a library differ first: section and symbol of an object, line of a text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import zip_longest

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

AR = b"!<arch>\n"
HEADER_BYTES = 60
"""Of a member of a `.a`; all of its fields are text (ar(5))."""


def first_difference(ours: bytes, theirs: bytes) -> str:
    """What differs first, in words; empty where nothing does."""
    if ours == theirs:
        return ""
    if ours.startswith(AR) and theirs.startswith(AR):
        return _of_archives(ours, theirs)
    if ours.startswith(b"\x7fELF") and theirs.startswith(b"\x7fELF"):
        return _of_objects(ours, theirs)
    try:
        pairs = zip_longest(ours.decode().splitlines(), theirs.decode().splitlines())
    except UnicodeDecodeError:
        return f"byte {_first(ours, theirs)}"
    number = next((number for number, (a, b) in enumerate(pairs, 1) if a != b), 0)
    return f"line {number}" if number else "the ends of its lines"


def archive_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of a `.a` of GNU's form, its tables included; ValueError where it is none."""
    if not data.startswith(AR):
        raise ValueError("no archive of objects")
    at, long_names = len(AR), b""
    while at < len(data):
        header = data[at : at + HEADER_BYTES]
        name, size = header[:16].decode("ascii").rstrip(), int(header[48:58])
        content = data[at + HEADER_BYTES : at + HEADER_BYTES + size]
        if header[58:] != b"`\n" or len(content) != size:
            raise ValueError(f"truncated at '{name}'")
        if name == "//":
            long_names = content
        elif name[1:].isdecimal():
            name = long_names[int(name[1:]) :].partition(b"/\n")[0].decode("ascii")
        yield name if name in ("/", "//", "/SYM64/") else name.removesuffix("/"), content
        at += HEADER_BYTES + size + size % 2


def _of_archives(ours: bytes, theirs: bytes) -> str:
    try:
        pairs = list(zip_longest(archive_members(ours), archive_members(theirs), fillvalue=("", b"")))
    except ValueError as error:
        return f"{error}"
    differing = [(a, b) for a, b in pairs if a != b]
    # The table of symbols comes first and tells least.
    for (name, a), (other, b) in sorted(differing, key=lambda pair: pair[0][0].startswith("/")):
        if name != other:
            return f"{name or other}, which only one of the two has at its place"
        return f"{name}: {first_difference(a, b)}"
    return f"byte {_first(ours, theirs)}"


def _of_objects(ours: bytes, theirs: bytes) -> str:
    try:
        first, second = (ELFFile(io.BytesIO(data)) for data in (ours, theirs))
        for a, b in zip_longest(first.iter_sections(), second.iter_sections()):
            if a is None or b is None or a.name != b.name:
                return f"section {(a or b).name}, which only one of the two has at its place"
            if a["sh_type"] != "SHT_NOBITS" and a.data() != b.data():
                offset = _first(a.data(), b.data())
                return f"section {a.name}, byte {offset}{_symbol(first, a.name, offset)}"
            if a.header != b.header:
                return f"the header of section {a.name}"
    except (ELFError, ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
        return f"byte {_first(ours, theirs)}, of an object that cannot be read ({error})"
    return f"byte {_first(ours, theirs)}, in its headers"


def _symbol(elf: ELFFile, section: str, offset: int) -> str:
    """The symbol that lies there, if one does. Those of linked files have addresses, not offsets."""
    for table in elf.iter_sections():
        if not isinstance(table, SymbolTableSection):
            continue
        for symbol in table.iter_symbols():
            index = symbol["st_shndx"]
            if not isinstance(index, int) or not symbol.name:
                continue
            place = elf.get_section(index)
            start = symbol["st_value"] - place["sh_addr"]
            if place.name == section and start <= offset < start + symbol["st_size"]:
                return f", in {symbol.name}"
    return ""


def _first(ours: bytes, theirs: bytes) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
