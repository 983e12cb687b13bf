"""Debian packages of a target's architecture, unpacked into folders of ours with all that they need."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from kernels.errors import MissingToolError
from toolchains.emulators import cache_folder
from toolchains.limits import limit
from toolchains.process import run
from toolchains.target import Target

SUITES = {"bookworm": "libgcc-12-dev", "trixie": "libgcc-14-dev", "forky": "libgcc-15-dev"}
"""Debian's suites, and which package of each has the compiler's own library.

Release 12 is the first choice, for its builds run on the oldest emulator; release 13 is the first
with RISC-V, and the one after it the first with LoongArch.
"""
ABSENT = "Unable to locate package"


def architecture(target: Target) -> str:
    """Debian's name of the target's architecture."""
    named = re.fullmatch(r"libc6-dev-(\w+)-cross", target.c.libc_package)
    return named[1] if named else "amd64"


def sysroot(target: Target, package: str, say: Callable[[str], None], *, static: bool = False) -> Path:
    """A folder with a package and all that it needs; with what a static program needs, if `static`.

    MissingToolError where apt cannot bring it.
    """
    arch = architecture(target)
    place = unpacked_place(target, f"{package}.static" if static else package)
    if place.is_dir():
        return place
    if not shutil.which("apt-get"):
        raise MissingToolError("the peers' foreign builds come through apt, which is not here")
    say(f"{package} for {arch}: downloading")
    place.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    for suite, libgcc in SUITES.items():
        packages = (package, "libc6-dev", libgcc) if static else (package,)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            try:
                _unpack(packages, arch, suite, Path(folder))
            except MissingToolError as error:
                problems.append(f"{suite}: {error}")
                continue
            (Path(folder) / "root").rename(place)
            return place
    if all(ABSENT in problem for problem in problems):
        raise MissingToolError(f"Debian ({', '.join(SUITES)}) has no {package} for {arch}")
    raise MissingToolError(f"{package} for {arch}: {'; '.join(problems)}")


def unpacked_place(target: Target, package: str) -> Path:
    """Where a package lies once it has been unpacked."""
    return cache_folder() / "peers" / architecture(target) / package


def _unpack(packages: Sequence[str], arch: str, suite: str, folder: Path) -> None:
    """Fill `folder/root`.

    Links to absolute places become relative, for QEMU would follow them out of the folder. Where
    packages have everything below /usr, the loader is found by the links that a system has.
    """
    words = _lists(arch, suite)
    lines: list[str] = []
    _apt([*words, "--no-install-recommends", "-s", "install", *packages], folder, lines.append)
    needed = [line.split()[1] for line in lines if line.startswith("Inst ")]
    _apt([*words, "download", *needed], folder)
    for file in sorted(folder.glob("*.deb")):
        ended = run(["dpkg-deb", "-x", str(file), str(folder / "root")], timeout=limit("install"))
        if ended.status != 0:
            raise MissingToolError(f"{file.name} cannot be unpacked: {ended.output}")
    root = folder / "root"
    for name in ("lib", "lib64"):
        if (root / "usr" / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for link in root.rglob("*"):
        if link.is_symlink() and link.readlink().is_absolute():
            inside = root / link.readlink().relative_to("/")
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))


@cache
def _lists(arch: str, suite: str) -> list[str]:
    """Options of an apt for an architecture and a suite, its lists and state in our folder, up to date."""
    place = cache_folder() / "peers" / arch / f"apt-{suite}"
    (place / "lists").mkdir(parents=True, exist_ok=True)
    (place / "status").touch()
    (place / "sources.list").write_text(_sources(suite), encoding="utf-8")
    words = [
        "-q",
        *("-o", f"Dir::State::lists={place / 'lists'}"),
        *("-o", f"Dir::State::status={place / 'status'}"),
        *("-o", f"Dir::Cache={place / 'cache'}"),
        *("-o", f"APT::Architecture={arch}"),
        *("-o", f"APT::Architectures={arch}"),
        *("-o", f"Dir::Etc::sourcelist={place / 'sources.list'}"),
        *("-o", "Dir::Etc::sourceparts=-"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    _apt([*words, "update"], place)
    return words


def _apt(words: Sequence[str], folder: Path, on_line: Callable[[str], None] | None = None) -> None:
    """Run apt; MissingToolError says what it found wrong first, for the rest follows from it."""
    ended = run(["apt-get", *words], timeout=limit("install"), cwd=folder, on_line=on_line)
    if ended.status != 0:
        said = [line[3:].strip() for line in ended.output.splitlines() if line.startswith("E: ")]
        raise MissingToolError(said[0] if said else f"apt-get ended with status {ended.status}")


def _sources(suite: str) -> str:
    """A suite of the archive that this machine's apt uses."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    archives = re.findall(r"^(?:URIs:|deb(?:\s+\[.*\])?)\s+(\S+/debian)/?\s*", text, re.MULTILINE)
    if not archives:
        raise MissingToolError("apt's sources name no Debian archive")
    return f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {archives[0]} {suite} main\n"
