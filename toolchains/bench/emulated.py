"""Instructions that the peers' Debian builds execute under QEMU for the same products.

A program of a few lines calls the library, once to warm it and once between the marks that
the counter of instructions knows (`toolchains/runner/counter.c`); every instruction counts,
wherever it lies. The libraries of a foreign architecture are unpacked into a folder of ours,
which QEMU takes for the root of its file system.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kernels.errors import EngineError, KernfitError, MissingToolError
from kernels.plan import Kernel
from toolchains.bench.sysroots import sysroot
from toolchains.emulators import Emulator, find_emulator
from toolchains.limits import limit
from toolchains.link import RUNNER_SOURCES, counter, zig_environment
from toolchains.process import run
from toolchains.target import Target

SOURCE = Path(__file__).parent / "peer.c"


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A peer: its Debian package, its shared object, how `peer.c` calls it."""

    package: str
    file: str
    call: str


LIBRARIES = {
    "openblas": (Library(package="libopenblas0-serial", file="libopenblas.so.0", call="BLAS"),),
    "blis": (Library(package="libblis4-serial", file="libblis.so.4", call="BLAS"),),
    "xnnpack": (
        Library(package="libxnnpack0", file="libXNNPACK.so.0", call="XNNPACK"),
        Library(package="libxnnpack0.20241108", file="libXNNPACK.so.0.20241108", call="XNNPACK_2024"),
    ),
}
"""By peer, what Debian calls it: in release 12, then later."""


def measure_peers(
    target: Target, kernels: Sequence[Kernel], say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Mean instructions for each operation by peer; and why others were not counted."""
    emulator = find_emulator(target.qemu)
    if emulator is None or not emulator.loads_plugins:
        return {}, dict.fromkeys(LIBRARIES, "no QEMU here counts instructions")
    found: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            library, root = unpacked(target, name, say)
            say(f"{name} for {target.name}: counting")
            counts = [_count(target, library, kernel, root, emulator) / kernel.flops for kernel in kernels]
            found[name] = sum(counts) / len(counts)
        except KernfitError as error:
            missing[name] = str(error).splitlines()[-1]
    return found, missing


def unpacked(target: Target, peer: str, say: Callable[[str], None]) -> tuple[Library, Path]:
    """A peer's build for the target, and the folder where it lies; MissingToolError without one."""
    problems = []
    for library in LIBRARIES[peer]:
        try:
            return library, sysroot(target, library.package, say)
        except MissingToolError as error:
            problems.append(str(error))
    raise MissingToolError("; ".join(problems))


def _count(target: Target, library: Library, kernel: Kernel, root: Path, emulator: Emulator) -> int:
    """Instructions of one call; EngineError if the program fails or its result is wrong."""
    shared = next(root.rglob(library.file), None)
    if shared is None:
        raise MissingToolError(f"{library.package} has no {library.file}")
    (m, k), n = kernel.operand("a").shape, kernel.output.shape[-1]
    triple = target.c.zig.replace("musl", "gnu")
    zig = [*counter()[:3], "cc", "-target", triple, *target.c.zig_flags]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for command in (
            [
                *zig,
                "-O2",
                *(f"-D{word}" for word in (f"M={m}", f"N={n}", f"K={k}", library.call)),
                f"-I{RUNNER_SOURCES}",
                "-o",
                "peer",
                str(SOURCE),
                str(shared),
                "-Wl,--allow-shlib-undefined",
                f"-Wl,-rpath,/{shared.parent.relative_to(root)}",
            ],
            counter(),
        ):
            ended = run(command, timeout=limit("tool"), cwd=work, env=zig_environment())
            if ended.status != 0:
                raise EngineError(f"the program does not link: {ended.output}")
        plugin = f"{work / 'counter.so'},from=0,to={2**64 - 1},out={work / 'blocks'}"
        command = [str(emulator.path), "-cpu", target.qemu.cpus[0], "-L", str(root), "-plugin", plugin]
        ended = run([*command, str(work / "peer")], timeout=limit("tool"))
        if ended.status != 0:
            raise EngineError(
                f"{library.package} under {emulator.name}: status {ended.status} {ended.output}"
            )
        lines = (work / "blocks").read_text(encoding="ascii").splitlines()
    return sum(int(length) * int(times) for _, length, times in map(str.split, lines))
