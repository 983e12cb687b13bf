"""Bytes of code and data: our library, and a static program with one product, beside the peers'.

The peers' static libraries are Debian's, of each architecture, and so is the C library that they
need; ours needs none, so its program has zig's small one for the program's start.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from rich.table import Table

from kernels.errors import EngineError, KernfitError, MissingToolError
from kernels.models import catalog, read_listing
from kernels.plan import Plan
from toolchains import pipeline
from toolchains.bench.emulated import LIBRARIES, unpacked
from toolchains.bench.sysroots import sysroot
from toolchains.limits import limit
from toolchains.link import zig_environment
from toolchains.making import Options
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.target import Target

ONE = Path(__file__).parent / "sets" / "one.toml"
"""A listing of one product."""
BLAS = """
int cblas_sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float,
                float *, int);
float a[M * K], b[K * N], c[M * N];
int main(void)
{
    cblas_sgemm(101, 111, 111, M, N, K, 1.0f, a, K, b, N, 0.0f, c, N);
    return c[0] != 0.0f;
}
"""
OURS = """
#include "HEADER"
float a[M * K], b[K * N], c[M * N];
int main(void)
{
    return SYMBOL(a, b, c, 0) != 0 || c[0] != 0.0f;
}
"""
EMPTY = """
int main(void)
{
    return 0;
}
"""
STATIC = {
    "openblas": ("libopenblas-serial-dev", "libopenblas.a"),
    "blis": ("libblis-serial-dev", "libblis.a"),
}
"""By peer, Debian's package with its static library, and that library's name."""
NOT_STATIC = {"xnnpack": "Debian ships it as a shared object alone"}
LIBC = ("libpthread.a", "libm-*.a", "libmvec.a", "libm.a", "libc.a", "libgcc.a", "libgcc_eh.a")
"""What a static program may need of the C library and the compiler's, where an architecture has it.

Of libm.a, a linker script that names places in the root of the file system, the archives are taken.
"""


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of a static program, and how many of them an empty one with the same C library has too."""

    total: int
    libc: int


class Size(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of code and constants: of the ResNet-50 library, and of programs with one product.

    `shared` are the peers' shared objects as Debian builds them for the architecture, `programs`
    static programs with their products. `missing` says why a peer is in neither, `not_static` why
    it is not in `programs`.
    """

    library: int
    kernel: int
    program: int
    shared: dict[str, int]
    programs: dict[str, Program]
    missing: dict[str, str]
    not_static: dict[str, str]


def measure(target: Target, options: Options, progress: Progress) -> Size:
    """Build what is to be measured; weights and zeroed memory do not count."""
    built = pipeline.build(read_listing(catalog()["resnet50"]), target, options, progress)
    library = sum(k.code_bytes + k.constant_bytes for k in built.manifest.kernels)
    one = read_listing(ONE)
    kernel = pipeline.build(one, target, options, progress).manifest.kernels[0]
    place = options.build / target.name / one.name
    plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    (m, k), n = plan.kernels[0].operand("a").shape, plan.kernels[0].output.shape[-1]
    sizes = [f"-D{name}={value}" for name, value in (("M", m), ("N", n), ("K", k))]
    text = OURS.replace("HEADER", f"{one.name}.h").replace("SYMBOL", plan.kernels[0].symbol)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target.c.zig, *target.c.zig_flags]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        words = [*sizes, f"-I{place}", str(place / f"lib{one.name}.a")]
        program = _program(text, zig, words, work)
    programs: dict[str, Program] = {}
    not_static = dict(NOT_STATIC)
    for name in STATIC:
        try:
            programs[name] = linked_with(name, (m, n, k), target, progress.say)
        except MissingToolError as error:
            not_static[name] = str(error)
    shared: dict[str, int] = {}
    missing: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            peer, root = unpacked(target, name, progress.say)
            shared[name] = _bytes(next(root.rglob(peer.file)))
        except KernfitError as error:
            missing[name] = str(error)
    return Size(
        library=library,
        kernel=kernel.code_bytes + kernel.constant_bytes,
        program=program,
        shared=shared,
        programs=programs,
        missing=missing,
        not_static=not_static,
    )


def _program(text: str, compiler: list[str], words: list[str], work: Path) -> int:
    source = work / "program.c"
    source.write_text(text, encoding="utf-8")
    flags = ["-O2", "-static", "-s", "-ffunction-sections", "-Wl,--gc-sections"]
    _tool([*compiler, *flags, "-o", str(work / "program"), str(source), *words])
    return _bytes(work / "program")


def linked_with(
    peer: str, extents: tuple[int, int, int], target: Target, say: Callable[[str], None]
) -> Program:
    """A static program with a peer's product of m x n x k; MissingToolError where Debian has no such."""
    package, archive = STATIC[peer]
    root = sysroot(target, package, say, static=True)
    sizes = [f"-D{name}={value}" for name, value in zip("MNK", extents, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        total, libc = (_static(text, sizes, target, root, archive, Path(folder)) for text in (BLAS, EMPTY))
    return Program(total=total, libc=libc)


def _static(text: str, sizes: list[str], target: Target, root: Path, archive: str, work: Path) -> int:
    """Bytes of a program with a peer's archive and Debian's C library, both in `root`."""
    zig = [sys.executable, "-m", "ziglang"]
    (work / "static.c").write_text(text, encoding="utf-8")
    triple = target.c.zig.replace("musl", "gnu")
    flags = ["-O2", "-fno-stack-protector", *target.c.zig_flags]
    _tool(
        [*zig, "cc", "-target", triple, *flags, *sizes, "-c", "-o", f"{work}/static.o", f"{work}/static.c"]
    )

    def there(name: str) -> str:
        return str(next(root.rglob(name)))

    archives = [
        str(found)
        for name in LIBC
        for found in sorted(root.rglob(name))
        if found.read_bytes().startswith(b"!<arch>")
    ]
    _tool(
        [
            *zig,
            "ld.lld",
            *("-m", target.c.linker, "-static", "-s", "--gc-sections", "-o", f"{work}/static"),
            *map(there, ("crt1.o", "crti.o", "crtbeginT.o")),
            f"{work}/static.o",
            there(archive),
            *("--start-group", *archives, "--end-group"),
            *map(there, ("crtend.o", "crtn.o")),
        ]
    )
    return _bytes(work / "static")


def _tool(command: list[str]) -> None:
    ended = run(command, timeout=limit("tool"), env=zig_environment())
    if ended.status != 0:
        raise EngineError(f"the program does not link: {ended.output}")


def _bytes(path: Path) -> int:
    """What an ELF file brings into memory, without memory that begins as zeros."""
    with path.open("rb") as stream:
        return sum(
            int(section["sh_size"])
            for section in ELFFile(stream).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] != "SHT_NOBITS"
        )


def show_sizes(
    targets: Sequence[Target], options: Options, progress: Progress, show: Callable[[Any], None]
) -> dict[str, Size]:
    """Measure and print a row for each target."""
    found = {target.name: measure(target, options, progress) for target in targets}
    table = Table(box=None, header_style="bold", title="bytes of code and constants")
    ours = ("ResNet-50 library", "one product", "static program with it")
    theirs = [f"{peer}, {what}" for peer in STATIC for what in ("static program", "without the C library")]
    for heading in ("target", *ours, *(f"{name}, shared" for name in LIBRARIES), *theirs):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for name, size in found.items():
        programs = [size.programs.get(peer) for peer in STATIC]
        table.add_row(
            name,
            *(f"{count:,}" for count in (size.library, size.kernel, size.program)),
            *(f"{size.shared[peer]:,}" if peer in size.shared else "-" for peer in LIBRARIES),
            *(
                f"{count:,}" if each is not None else "-"
                for each in programs
                for count in ((each.total, each.total - each.libc) if each else (0, 0))
            ),
        )
    show(table)
    for name, size in found.items():
        for peer, why in size.missing.items():
            show(f"{name}: no {peer}: {why}")
    for peer, why in NOT_STATIC.items():
        show(f"no static program with {peer}: {why}")
    return found
