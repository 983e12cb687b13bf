"""The instructions of linked code, read with pyelftools and capstone."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from elftools.elf.elffile import ELFFile

from kernels.errors import KernfitError
from toolchains.target import Disassembler, Target

PAGE_BYTES = 4096


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function's addresses, from `start` to before `end`, and its instructions' texts."""

    start: int
    end: int
    addresses: tuple[int, ...]
    texts: tuple[str, ...]

    def executed(self, blocks: Iterable[tuple[int, int, int]]) -> Iterator[tuple[str, int]]:
        """Each instruction's text and how often it ran; blocks as `Ended` has them.

        QEMU ends a block before an instruction that crosses a page, unless the block begins
        with it. For x86 it finds that out too late, and tells plugins of one too many.
        """
        for address, length, runs in blocks:
            first = bisect_left(self.addresses, address)
            last = first + length - 1
            if self.addresses[first : first + 1] != (address,) or last >= len(self.texts):
                raise KernfitError(f"no instruction begins at {address:#x}; this is a bug of kernfit")
            if length > 1 and self._crosses_page(last):
                last -= 1
            for text in self.texts[first : last + 1]:
                yield text, runs

    def _crosses_page(self, number: int) -> bool:
        start = self.addresses[number]
        after = self.addresses[number + 1] if number + 1 < len(self.addresses) else self.end
        return start // PAGE_BYTES != (after - 1) // PAGE_BYTES


def executed_in(
    own: Iterable[Function], blocks: Iterable[tuple[int, int, int]]
) -> Iterator[tuple[str, int]]:
    """As `Function.executed`, over several functions; blocks of others are left out."""
    ordered = sorted(own, key=lambda function: function.start)
    starts = [function.start for function in ordered]
    shares: dict[int, list[tuple[int, int, int]]] = {}
    for block in blocks:
        number = bisect_right(starts, block[0]) - 1
        if number >= 0 and block[0] < ordered[number].end:
            shares.setdefault(number, []).append(block)
    for number, share in shares.items():
        yield from ordered[number].executed(share)


def functions(path: Path, target: Target) -> dict[str, Function]:
    """Every function of a linked file by its name; KernfitError where it cannot be read."""
    engine = _engine(target.disassembler)
    found = {}
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
        for symbol in table.iter_symbols():
            if symbol["st_info"]["type"] != "STT_FUNC" or not symbol["st_size"]:
                continue
            start, size = symbol["st_value"], symbol["st_size"]
            code = _bytes_at(elf, start, size)
            lines = [(at, f"{name} {words}") for at, _, name, words in engine.disasm_lite(code, start)]
            found[symbol.name] = Function(
                start=start,
                end=start + size,
                addresses=tuple(at for at, _ in lines),
                texts=tuple(text for _, text in lines),
            )
    return found


def _bytes_at(elf: Any, address: int, size: int) -> bytes:
    for segment in elf.iter_segments("PT_LOAD"):
        offset = address - segment["p_vaddr"]
        if offset >= 0 and offset + size <= segment["p_filesz"]:
            return bytes(segment.data()[offset : offset + size])
    raise KernfitError(f"nothing is loaded at {address:#x}; this is a bug of kernfit")


def _engine(description: Disassembler) -> Any:
    import capstone  # noqa: PLC0415 - a fifth of the time of a build that finds nothing to do

    mode = 0
    for name in description.modes:
        mode |= getattr(capstone, f"CS_MODE_{name}")
    engine = capstone.Cs(getattr(capstone, f"CS_ARCH_{description.arch}"), mode)
    engine.skipdata = True
    return engine


def vector_instructions(executed: Iterable[tuple[str, int]], target: Target) -> int:
    """How many of the instructions work on vectors, by the target's own pattern."""
    pattern = re.compile(target.disassembler.vector) if target.disassembler.vector else None
    return sum(runs for text, runs in executed if pattern and pattern.search(text))


def mnemonics(executed: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How often each mnemonic was executed, the most frequent first."""
    total: Counter[str] = Counter()
    for text, runs in executed:
        total[text.split(" ", 1)[0]] += runs
    return dict(total.most_common())
