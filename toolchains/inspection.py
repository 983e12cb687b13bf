"""What object files really hold, read with pyelftools."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile

from kernels.codegen.driver import weights_symbol
from kernels.errors import KernfitError
from kernels.manifest import Manifest, Measured
from toolchains.disassembly import functions, vector_instructions
from toolchains.frames import Stack, stack_of
from toolchains.report import Inspection, Row
from toolchains.target import Target

ALLOWED_UNDEFINED = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", ".TOC."}
"""What a library may leave to its user: three functions, and names of the linker itself."""

MOST_STACK_BYTES = 8192
BOUNDED_VECTOR_BITS = 1024
"""Up to this length of vectors is the stack bounded; for longer ones the manifest tells it."""
DF_TEXTREL = 0x4
"""System V ABI, dynamic section: DT_FLAGS."""
HARD_FLOAT = {"double", "VFP registers"}
ADDRESSES = {".toc"}
"""Sections of addresses that only the linker fills (64-bit ELF V2 ABI for Power, 2.3.2)."""


def measure(folder: Path, symbol: str, target: Target, needs: Collection[str] = ()) -> Measured:
    """Sizes of a function; KernfitError where its object breaks a promise of the C ABI.

    It may refer to the symbols in `needs`, which the library itself has.
    """
    with (folder / f"{symbol}.o").open("rb") as stream:
        elf = ELFFile(stream)
        _inspect(elf, symbol, target, needs)
        code = constants = 0
        for section in elf.iter_sections():
            if not section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                continue
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
                code += section["sh_size"]
            else:
                constants += section["sh_size"]
    stack = stack_of(folder / f"{symbol}.frame.o")
    return Measured(
        code_bytes=code, constant_bytes=constants, stack_bytes=stack.bytes, stack_vectors=stack.vectors
    )


def _inspect(elf: ELFFile, symbol: str, target: Target, needs: Collection[str]) -> None:
    for fault in _faults(elf, symbol, target, needs):
        raise KernfitError(f"{symbol}.o for {target.name} {fault}; this is a bug of kernfit")


def _faults(elf: ELFFile, symbol: str, target: Target, needs: Collection[str]) -> Iterator[str]:
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
        elif entry["st_shndx"] == "SHN_UNDEF" and entry.name not in {*ALLOWED_UNDEFINED, *needs}:
            yield f"needs the symbol {entry.name}"
    writable = SH_FLAGS.SHF_WRITE | SH_FLAGS.SHF_ALLOC
    for section in elf.iter_sections():
        if section.name in ADDRESSES:
            continue
        if section["sh_flags"] & writable == writable and section["sh_size"]:
            yield f"has writable data in {section.name}"


def inspect_library(
    folder: Path, manifest: Manifest, target: Target, paths: Iterable[Path]
) -> list[Inspection]:
    """What was found in the linked library, one line for each promise.

    `paths` are folders of this machine, none of which may stand in a file that ships.
    """
    name = manifest.library
    with (folder / f"lib{name}.so").open("rb") as stream:
        found = list(_promises(ELFFile(stream), manifest, target))
    found.append(_vectors(folder / f"lib{name}.so", manifest, target))
    found.append(_stack(manifest, target))
    named = [
        str(path)
        for path in paths
        for file in (f"lib{name}.a", f"lib{name}.so")
        if str(path).encode() in (folder / file).read_bytes()
    ]
    found.append(
        Inspection(name="paths of the build machine", passed=not named, detail=", ".join(named) or "none")
    )
    return found


def _stack(manifest: Manifest, target: Target) -> Inspection:
    """The deepest kernel, and what the run has on the stack meanwhile, with long vectors."""
    longest = min(target.longest_vector_bits, BOUNDED_VECTOR_BITS)
    depths = {
        each.name: Stack(bytes=each.stack_bytes, vectors=each.stack_vectors).at(longest)
        for each in manifest.kernels
    }
    name = max(depths, key=lambda name: depths[name])
    depth = depths[name]
    detail = f"at most {depth} bytes, in {name}"
    if manifest.network is not None:
        run = Stack(bytes=manifest.network.stack_bytes, vectors=manifest.network.stack_vectors).at(longest)
        depth += run
        detail += f", and {run} in run"
    if target.cpu.scalable:
        detail += f", with vectors of {longest} bits"
    return Inspection(name="stack use", passed=depth <= MOST_STACK_BYTES, detail=detail)


def vectorised(manifest: Manifest, target: Target) -> list[str]:
    """The kernels whose tile is at least a vector wide: vector instructions are due in them."""
    lanes = target.cpu.vector_bits // 32
    return [each.name for each in manifest.kernels if lanes and int(each.schedule.get("nr", 0)) >= lanes]


def _vectors(path: Path, manifest: Manifest, target: Target) -> Inspection:
    code = functions(path, target)
    counts = {
        kernel.name: vector_instructions(((text, 1) for text in code[kernel.symbol].texts), target)
        for kernel in manifest.kernels
    }
    missing = [name for name in vectorised(manifest, target) if not counts[name]]
    detail = f"in {sum(map(bool, counts.values()))} of {len(counts)} kernels"
    if missing:
        detail += f", but not in {', '.join(missing)}"
    return Inspection(name="vector instructions", passed=not missing, detail=detail)


def inspect_runs(rows: Iterable[Row], manifest: Manifest, target: Target) -> list[Inspection]:
    """Whether vectors really ran on each emulated processor, as far as runs were counted."""
    due = set(vectorised(manifest, target))
    counted: dict[str, list[Row]] = {}
    for row in rows:
        if row.insns is not None and row.kernel in due:
            counted.setdefault(row.cpu, []).append(row)
    found = []
    for cpu, each in counted.items():
        idle = [row.kernel for row in each if not row.vector_insns]
        share = sum(row.vector_insns or 0 for row in each) / sum(row.insns or 0 for row in each)
        detail = f"{100 * share:.0f} % of the instructions of {len(each)} kernels"
        lengths = {row.vector_bits for row in each if row.vector_bits}
        detail += "".join(f", {bits} bits long" for bits in sorted(lengths))
        detail += f"; none in {', '.join(idle)}" if idle else ""
        found.append(Inspection(name=f"vector instructions run on {cpu}", passed=not idle, detail=detail))
    return found


def _promises(elf: ELFFile, manifest: Manifest, target: Target) -> Iterator[Inspection]:
    order = "little" if elf.little_endian else "big"
    machine = f"{elf['e_machine']}, {elf.elfclass} bits, {order}-endian"
    wanted = f"{target.elf_machine}, {target.pointer_bits} bits, {target.endianness}-endian"
    yield Inspection(name="machine", passed=machine == wanted, detail=machine)
    abi = _float_abi(elf)
    if abi:
        yield Inspection(name="floating-point ABI", passed=abi in HARD_FLOAT, detail=abi)
    symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())
    undefined = {s.name for s in symbols if s.name and s["st_shndx"] == "SHN_UNDEF"}
    exported = {s.name for s in symbols if s.name and s["st_shndx"] != "SHN_UNDEF"}
    ours = {kernel.symbol for kernel in manifest.kernels}
    allowed = set(ALLOWED_UNDEFINED)
    if manifest.network is not None:
        ours.add(manifest.network.symbol)
        if manifest.network.weights_mode == "symbol":
            allowed.add(weights_symbol(manifest.library))
    yield _subset("undefined symbols", undefined, undefined & allowed)
    yield _subset("exported symbols", exported, exported & ours)
    stacks = [s["p_flags"] & P_FLAGS.PF_X for s in elf.iter_segments() if s["p_type"] == "PT_GNU_STACK"]
    yield Inspection(
        name="executable stack",
        passed=bool(stacks) and not any(stacks),
        detail="no" if stacks else "not told",
    )
    tags = [(tag.entry.d_tag, tag.entry.d_val) for tag in elf.get_section_by_name(".dynamic").iter_tags()]
    text = any(tag == "DT_TEXTREL" or (tag == "DT_FLAGS" and value & DF_TEXTREL) for tag, value in tags)
    yield Inspection(name="text relocations", passed=not text, detail="some" if text else "none")
    data = [s.name for s in elf.iter_sections() if s.name in (".data", ".bss") and s["sh_size"]]
    yield Inspection(name="writable data", passed=not data, detail=", ".join(data) or "none")


def _subset(name: str, found: set[str], fine: set[str]) -> Inspection:
    wrong = sorted(found - fine)
    detail = ", ".join(wrong) if wrong else (f"{len(found)}" if found else "none")
    return Inspection(name=name, passed=not wrong, detail=detail)


def _float_abi(elf: ELFFile) -> str:
    """The floating-point ABI where an object says it: RISC-V's flags, ARM's attributes."""
    if elf["e_machine"] == "EM_RISCV":
        return {0x0: "soft", 0x2: "single", 0x4: "double", 0x6: "quad"}[elf["e_flags"] & 0x6]
    if elf["e_machine"] == "EM_ARM":
        for section in elf.iter_sections():
            if section["sh_type"] == "SHT_ARM_ATTRIBUTES":
                for part in section.iter_subsections():
                    for group in part.iter_subsubsections():
                        for attribute in group.iter_attributes("TAG_ABI_VFP_ARGS"):
                            return "VFP registers" if attribute.value == 1 else f"variant {attribute.value}"
        return "not told"
    return ""
