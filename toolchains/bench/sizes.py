"""Bytes of code and data: our library, and a static program with one product, beside the peers'."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from rich.table import Table

from kernels.errors import EngineError, KernfitError
from kernels.models import catalog, read_listing
from kernels.plan import Plan
from toolchains import pipeline
from toolchains.bench.emulated import LIBRARIES, sysroot
from toolchains.link import zig_environment
from toolchains.making import Options
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.target import Target

ONE = Path(__file__).parent / "sets" / "one.toml"
"""A listing of one product."""
TIMEOUT = 600.0
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
PEERS = {
    "OpenBLAS": ("openblas-serial/libopenblas.a", "openblas-pthread/libopenblas.a"),
    "BLIS": ("blis-serial/libblis.a", "blis-openmp/libblis.a", "blis-pthread/libblis.a"),
}
"""Static libraries of Debian, below /usr/lib/<triplet>."""


class Size(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of code and constants: of the ResNet-50 library, and of programs with one product.

    `shared` are the peers' shared objects as Debian builds them for the architecture;
    `programs` are static programs with their products, where this machine links them.
    """

    library: int
    kernel: int
    program: int
    shared: dict[str, int]
    programs: dict[str, int]
    missing: dict[str, str]


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
        programs = {}
        gcc = shutil.which("gcc")
        if gcc is not None and target.family == platform.machine():
            for name, places in PEERS.items():
                archives = [Path("/usr/lib") / target.c.triplet / each for each in places]
                archive = next((each for each in archives if each.is_file()), None)
                if archive is not None:
                    libraries = ["-fopenmp", "-lpthread", "-lm"]
                    programs[name] = _program(BLAS, [gcc], [*sizes, str(archive), *libraries], work)
    shared: dict[str, int] = {}
    missing: dict[str, str] = {}
    for name, peer in LIBRARIES.items():
        try:
            found = next(sysroot(target, peer.package, progress.say).rglob(peer.file))
            shared[name] = _bytes(found)
        except KernfitError as error:
            missing[name] = str(error)
    return Size(
        library=library,
        kernel=kernel.code_bytes + kernel.constant_bytes,
        program=program,
        shared=shared,
        programs=programs,
        missing=missing,
    )


def _program(text: str, compiler: list[str], words: list[str], work: Path) -> int:
    source = work / "program.c"
    source.write_text(text, encoding="utf-8")
    flags = ["-O2", "-static", "-s", "-ffunction-sections", "-Wl,--gc-sections"]
    ended = run(
        [*compiler, *flags, "-o", str(work / "program"), str(source), *words],
        timeout=TIMEOUT,
        env=zig_environment(),
    )
    if ended.status != 0:
        raise EngineError(f"the program does not link: {ended.output}")
    return _bytes(work / "program")


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
    theirs = [f"{peer}, static program" for peer in PEERS]
    for heading in ("target", *ours, *(f"{name}, shared" for name in LIBRARIES), *theirs):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for name, size in found.items():
        table.add_row(
            name,
            f"{size.library:,}",
            f"{size.kernel:,}",
            f"{size.program:,}",
            *(f"{size.shared[peer]:,}" if peer in size.shared else "-" for peer in LIBRARIES),
            *(f"{size.programs[peer]:,}" if peer in size.programs else "-" for peer in PEERS),
        )
    show(table)
    for name, size in found.items():
        for peer, why in size.missing.items():
            show(f"{name}: no {peer}: {why}")
    return found
