"""The local engine: this machine, zig's compiler from PyPI, and the QEMU of `invoke setup`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from kernels.errors import EngineError, InputError, MissingToolError, ResourceError
from toolchains.emulators import cache_folder, find_emulator
from toolchains.engines import Surroundings
from toolchains.limits import VARIABLE, limit, passed_on
from toolchains.machine import CODE_GENERATION_BYTES, available_bytes
from toolchains.owner import owner
from toolchains.process import end_all, run
from toolchains.step import PARENT, peak_of
from toolchains.target import Target

ROOT = Path(__file__).resolve().parents[2]
OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "annot allocate memory", "LLVM ERROR: out of memory")
"""What Python, C++, libc and LLVM say of it."""
PASSED_ON = (
    "PATH",
    "HOME",
    "XDG_CACHE_HOME",
    "TMPDIR",
    "LANG",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONDONTWRITEBYTECODE",
)


class LocalEngine:
    """Steps as child processes of this one, without any isolation."""

    name = "local"
    compiler: Literal["zig", "gcc"] = "zig"

    def __init__(self) -> None:
        """An engine that is open."""
        self._closed = False

    def prepare(self, target: Target, on_line: Callable[[str], None], *, anew: bool = False) -> None:
        """Nothing: pip and `invoke setup` have installed all that there is."""

    def identity(self, target: Target) -> str:
        """The engine's name and the emulator; its other tools are pinned with kernfit."""
        emulator = find_emulator(target.qemu) if target.qemu.cpus else None
        if emulator is None:
            return self.name
        return f"{self.name}, {emulator.name}{', counting' if emulator.loads_plugins else ''}"

    def describe(self, target: Target) -> Surroundings:
        """There is no image."""
        return Surroundings(engine=self.name)

    def run(
        self,
        module: str,
        request: Path,
        target: Target,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Run `python -m module request` with a small environment."""
        if self._closed:
            raise EngineError("the engine was closed")
        command, env = self._begin(module, request, target)
        peak: list[int] = []

        def heard(line: str) -> None:
            told = peak_of(line)
            if told is not None:
                peak.append(told)
            elif on_line is not None:
                on_line(line)

        finished = run(
            command,
            timeout=limit("step") if timeout is None else timeout,
            cwd=ROOT,
            env=env,
            on_line=heard,
        )
        output = "\n".join(line for line in finished.output.splitlines() if peak_of(line) is None)
        check_step(module, finished.status, output, timed_out=finished.timed_out)
        return peak[-1] if peak else None

    def _begin(self, module: str, request: Path, _target: Target) -> tuple[list[str], dict[str, str]]:
        """The command of a step, and its environment."""
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        env |= {
            "PYTHONPATH": str(ROOT),
            "KERNFIT_ZIG_CACHE": str(cache_folder() / "zig"),
            PARENT: owner(),
            **passed_on(),
        }
        return [sys.executable, "-m", "toolchains.step", module, str(request)], env

    def close(self) -> None:
        """End the steps that still run, and begin no others."""
        self._closed = True
        end_all()


def check_step(module: str, status: int, output: str, *, timed_out: bool) -> None:
    """Raise what fits a step that did not end well."""
    if timed_out:
        raise EngineError(
            f"{module} ran over its time limit, which {VARIABLE}=step=SECONDS sets; last output: {output}"
        )
    if "No space left on device" in output:
        raise ResourceError(f"{module}: no space left on the disk")
    if status in (-9, 137) or any(words in output for words in OUT_OF_MEMORY):
        raise ResourceError(f"{module} ran out of memory; try --jobs 1")
    for kind in (InputError, MissingToolError, ResourceError):
        if status == kind.status and output:
            raise kind(output.splitlines()[-1].removeprefix("error: "))
    memory = available_bytes()
    if status != 0 and memory < CODE_GENERATION_BYTES:
        raise ResourceError(
            f"{module} failed with status {status} where only {memory >> 20} MiB of memory can be had, "
            f"and it takes up to {CODE_GENERATION_BYTES >> 20}; close other programs, or try --jobs 1"
        )
    if status != 0:
        raise EngineError(f"{module} failed with status {status}: {output}")
