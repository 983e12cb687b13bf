"""`python -m toolchains.link REQUEST.json`: archive, shared object and runner of a library.

The `.a` and the `.so` are made by the zig package's pinned tools on every engine, so that
they are the same bytes; the runner is linked by the engine's own C compiler.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from kernels.codegen.driver import run_symbol, weights_symbol
from kernels.codegen.request import read_request
from kernels.errors import KILLED, EngineError, KernfitError, MissingToolError, ResourceError
from kernels.plan import Plan
from toolchains.limits import limit
from toolchains.process import run
from toolchains.table import most_operands, runner_table
from toolchains.target import Target

RUNNER_SOURCES = Path(__file__).parent / "runner"
SOURCES = tuple(str(RUNNER_SOURCES / name) for name in ("runner.c", "call.c", "timing.c", "linux.c"))

OPERANDS = 256
"""Of one function, for which the runner has room unless it is told of more."""


class LinkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to link: the objects of `plan` lie in the request's folder, beside the header."""

    plan: Plan
    target: Target
    compiler: Literal["zig", "gcc"]


def link(request: LinkRequest, folder: Path) -> None:
    """Make `lib<library>.a`, `lib<library>.so`, `runner` and `counter.so` in `folder`."""
    name = request.plan.library
    objects, beside = _objects(request.plan)
    zig = [sys.executable, "-m", "ziglang"]
    _tool([*zig, *archiver(name), *objects], folder)
    _tool([*zig, *shared_linker(name, request.target), *objects], folder)
    table = folder / "table.c"
    table.write_text(runner_table(request.plan), encoding="utf-8")
    most = most_operands(request.plan)
    room = [f"-DMAX_OPERANDS={most}"] if most > OPERANDS else []
    _tool([*runner(request.compiler, request.target, (f"lib{name}.a", *beside)), *room], folder)
    _tool(counter(), folder)


def archiver(library: str) -> list[str]:
    """The words for zig, without the objects, that make the `.a`."""
    return ["ar", "rcsD", "--format=gnu", f"lib{library}.a"]


def shared_linker(library: str, target: Target) -> list[str]:
    """The words for zig, without the objects, that make the `.so`."""
    return [
        "ld.lld",
        "-m",
        target.c.linker,
        "-shared",
        "--build-id=none",
        "--hash-style=gnu",
        "-z",
        "noexecstack",
        "-z",
        "now",
        "-z",
        "text",
        "--strip-debug",
        "-soname",
        f"lib{library}.so",
        "-o",
        f"lib{library}.so",
    ]


def _objects(plan: Plan) -> tuple[list[str], list[str]]:
    """Objects of the library, and those that its user brings: weights that are left to him."""
    objects = [f"{kernel.symbol}.o" for kernel in plan.kernels]
    if plan.network is None:
        return objects, []
    objects.append(f"{run_symbol(plan.library)}.o")
    weights = [f"{weights_symbol(plan.library)}.o"] if plan.network.weights else []
    mode = plan.network.weights_mode
    return objects + (weights if mode == "embed" else []), weights if mode == "symbol" else []


def runner(kind: Literal["zig", "gcc"], target: Target, linked: Sequence[str]) -> list[str]:
    """The command that makes `runner` of `table.c` and of the files that are linked with it."""
    return [
        *compiler(kind, target),
        "-O1",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffreestanding",
        "-fno-builtin",
        "-fno-stack-protector",
        "-fno-pic",
        "-no-pie",
        "-nostdlib",
        "-static",
        "-I",
        str(RUNNER_SOURCES),
        "-I",
        ".",
        "-o",
        "runner",
        *SOURCES,
        "table.c",
        *linked,
    ]


def counter() -> list[str]:
    """The command that makes `counter.so`, a plugin for the QEMU of the machine it runs on."""
    return [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        f"{platform.machine()}-linux-gnu",
        "-O1",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-fvisibility=hidden",
        "-nostdlib",
        "-shared",
        "-o",
        "counter.so",
        str(RUNNER_SOURCES / "counter.c"),
    ]


def compiler(kind: Literal["zig", "gcc"], target: Target) -> list[str]:
    """The command of a C compiler for the target; MissingToolError if there is none."""
    if kind == "zig":
        return [sys.executable, "-m", "ziglang", "cc", "-target", target.c.zig, *target.c.zig_flags]
    found = shutil.which(f"{target.c.triplet}-gcc")
    if found is None:
        raise MissingToolError(f"{target.c.triplet}-gcc is missing; Debian's package is {target.c.package}")
    return [found, *target.c.gcc_flags, "-fno-tree-loop-distribute-patterns"]


def zig_environment() -> dict[str, str]:
    """The environment for zig: as it is, with a cache folder that is ours."""
    cache = os.environ.get("KERNFIT_ZIG_CACHE") or str(Path(tempfile.gettempdir()) / "kernfit-zig")
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}


def _tool(command: Sequence[str], folder: Path) -> None:
    finished = run(command, timeout=limit("tool"), cwd=folder, env=zig_environment(), own_group=False)
    if finished.status == -signal.SIGKILL:
        raise ResourceError(KILLED.format(Path(command[0]).name))
    if finished.status != 0:
        words = " ".join(Path(word).name for word in command[:4])
        raise EngineError(f"`{words} ...` failed with status {finished.status}: {finished.output}")


def main(path: str) -> int:
    """Link as the request at `path` says; the error, if any, is the last line printed."""
    try:
        link(read_request(Path(path), LinkRequest), Path(path).parent)
    except KernfitError as error:
        print(f"error: {error}")
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
