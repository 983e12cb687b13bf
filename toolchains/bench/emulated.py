"""Instructions that the peers' Debian builds execute under QEMU for the same products.

A program of a few lines calls the library, once to warm it and once between the marks that
the counter of instructions knows (`toolchains/runner/counter.c`); every instruction counts,
wherever it lies. The libraries of a foreign architecture are unpacked into a folder of ours,
which QEMU takes for the root of its file system.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kernels.errors import EngineError, KernfitError, MissingToolError
from kernels.plan import Kernel
from toolchains.emulators import Emulator, cache_folder, find_emulator
from toolchains.link import RUNNER, counter, zig_environment
from toolchains.process import run
from toolchains.target import Target

SOURCE = Path(__file__).parent / "peer.c"
SUITES = ("bookworm", "trixie")
"""Debian's suites: release 12, whose builds run on the oldest emulator; 13, the first with RISC-V."""
TIMEOUT = 900.0


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A peer: its Debian package, its shared object, how `peer.c` calls it."""

    package: str
    file: str
    call: str


LIBRARIES = {
    "openblas": Library(package="libopenblas0-serial", file="libopenblas.so.0", call="BLAS"),
    "blis": Library(package="libblis4-serial", file="libblis.so.4", call="BLAS"),
    "xnnpack": Library(package="libxnnpack0", file="libXNNPACK.so.0", call="XNNPACK"),
}


def measure_peers(
    target: Target, kernels: Sequence[Kernel], say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, str]]:
    """Mean instructions for each operation by peer; and why others were not counted."""
    emulator = find_emulator(target.qemu)
    if emulator is None or not emulator.loads_plugins:
        return {}, dict.fromkeys(LIBRARIES, "no QEMU here counts instructions")
    found: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, library in LIBRARIES.items():
        try:
            root = sysroot(target, library.package, say)
            say(f"{name} for {target.name}: counting")
            counts = [_count(target, library, kernel, root, emulator) / kernel.flops for kernel in kernels]
            found[name] = sum(counts) / len(counts)
        except KernfitError as error:
            missing[name] = str(error).splitlines()[-1]
    return found, missing


def architecture(target: Target) -> str:
    """Debian's name of the target's architecture."""
    named = re.fullmatch(r"libc6-dev-(\w+)-cross", target.c.libc_package)
    return named[1] if named else "amd64"


def sysroot(target: Target, package: str, say: Callable[[str], None]) -> Path:
    """A folder with a package of the target's architecture and all that it needs.

    MissingToolError where apt cannot bring it.
    """
    place = cache_folder() / "peers" / architecture(target) / package
    if place.is_dir():
        return place
    if not shutil.which("apt-get"):
        raise MissingToolError("the peers' foreign builds come through apt, which is not here")
    say(f"{package} for {architecture(target)}: downloading")
    place.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    for suite in SUITES:
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            try:
                _unpack(package, architecture(target), suite, Path(folder))
            except MissingToolError as error:
                problems.append(f"{suite}: {error}")
                continue
            (Path(folder) / "root").rename(place)
            return place
    raise MissingToolError("; ".join(problems))


def _unpack(package: str, arch: str, suite: str, folder: Path) -> None:
    """Fill `folder/root` by an apt whose lists and state are in the folder too.

    Links to absolute places become relative, for QEMU would follow them out of the folder.
    """
    (folder / "lists").mkdir()
    (folder / "status").touch()
    (folder / "sources.list").write_text(_sources(suite), encoding="utf-8")
    words = [
        "-q",
        *("-o", f"Dir::State::lists={folder / 'lists'}"),
        *("-o", f"Dir::State::status={folder / 'status'}"),
        *("-o", f"Dir::Cache={folder / 'cache'}"),
        *("-o", f"APT::Architecture={arch}"),
        *("-o", f"APT::Architectures={arch}"),
        *("-o", f"Dir::Etc::sourcelist={folder / 'sources.list'}"),
        *("-o", "Dir::Etc::sourceparts=-"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    _apt([*words, "update"], folder)
    lines: list[str] = []
    _apt([*words, "--no-install-recommends", "-s", "install", package], folder, lines.append)
    needed = [line.split()[1] for line in lines if line.startswith("Inst ")]
    _apt([*words, "download", *needed], folder)
    for file in sorted(folder.glob("*.deb")):
        ended = run(["dpkg-deb", "-x", str(file), str(folder / "root")], timeout=TIMEOUT)
        if ended.status != 0:
            raise MissingToolError(f"{file.name} cannot be unpacked: {ended.output}")
    for link in (folder / "root").rglob("*"):
        if link.is_symlink() and link.readlink().is_absolute():
            inside = folder / "root" / link.readlink().relative_to("/")
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))


def _apt(words: Sequence[str], folder: Path, on_line: Callable[[str], None] | None = None) -> None:
    ended = run(["apt-get", *words], timeout=TIMEOUT, cwd=folder, on_line=on_line)
    if ended.status != 0:
        raise MissingToolError(f"apt-get {words[-1]} failed: {ended.output.splitlines()[-1]}")


def _sources(suite: str) -> str:
    """A suite of the archive that this machine's apt uses."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    archives = re.findall(r"^(?:URIs:|deb(?:\s+\[.*\])?)\s+(\S+/debian)/?\s*", text, re.MULTILINE)
    if not archives:
        raise MissingToolError("apt's sources name no Debian archive")
    return f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {archives[0]} {suite} main\n"


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
                f"-I{RUNNER}",
                "-o",
                "peer",
                str(SOURCE),
                str(shared),
                "-Wl,--allow-shlib-undefined",
                f"-Wl,-rpath,/{shared.parent.relative_to(root)}",
            ],
            counter(),
        ):
            ended = run(command, timeout=TIMEOUT, cwd=work, env=zig_environment())
            if ended.status != 0:
                raise EngineError(f"the program does not link: {ended.output}")
        plugin = f"{work / 'counter.so'},from=0,to={2**64 - 1},out={work / 'blocks'}"
        command = [str(emulator.path), "-cpu", target.qemu.cpus[0], "-L", str(root), "-plugin", plugin]
        ended = run([*command, str(work / "peer")], timeout=TIMEOUT)
        if ended.status != 0:
            raise EngineError(
                f"{library.package} under {emulator.name}: status {ended.status} {ended.output}"
            )
        lines = (work / "blocks").read_text(encoding="ascii").splitlines()
    return sum(int(length) * int(times) for _, length, times in map(str.split, lines))
