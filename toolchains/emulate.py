"""`python -m toolchains.emulate REQUEST.json`: run kernels under QEMU's user mode.

One line of JSON is printed for each run, as soon as it has ended. Whether a result is
right is not judged here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Literal

import msgspec

from toolchains.process import run
from toolchains.target import Qemu

PROBE_SECONDS = 30.0
RUNNER_FAULTS = {
    2: "the runner does not know this kernel",
    3: "the runner could not read its input or write its output",
    4: "the kernel did not return 0",
    5: "the kernel wrote outside its buffers",
    6: "the kernel did not refuse a null pointer",
}

Outcome = Literal["ran", "wrong", "illegal", "crash", "timeout", "skipped"]


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of one kernel; files are relative to the request's folder."""

    kernel: str
    input: str
    output: str
    timeout: float


class EmulateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All runs of one library on one emulated CPU."""

    qemu: Qemu
    cpu: str
    runner: str
    runs: tuple[Run, ...]
    jobs: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run ended; `ran` means that there is an output to be judged."""

    kernel: str
    outcome: Outcome
    reason: str = ""
    emulator: str = ""


def cache_folder() -> Path:
    """Where `invoke setup` keeps what it unpacks without rights."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kernfit"


def find_emulator(binary: str) -> Path | None:
    """The emulator on the search path or in setup's cache, linked statically or not."""
    cached = cache_folder() / "qemu" / "usr" / "bin"
    for name in (f"{binary}-static", binary):
        found = shutil.which(name)
        if found:
            return Path(found)
        if (cached / name).is_file():
            return cached / name
    return None


def emulator_version(emulator: Path) -> tuple[int, int, int]:
    """The version that QEMU tells of itself."""
    output = run([str(emulator), "--version"], timeout=PROBE_SECONDS).output
    found = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", output)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


def emulate(request: EmulateRequest, folder: Path) -> None:
    """Run everything that the request names, `jobs` at once, and print how each ended."""
    emulator = find_emulator(request.qemu.binary)
    reason, version = "", ""
    if emulator is None:
        reason = f"{request.qemu.binary} is not installed; `invoke setup` brings it"
    else:
        number = emulator_version(emulator)
        version = f"{request.qemu.binary} {'.'.join(map(str, number))}"
        if number[:2] < request.qemu.minimum:
            wanted = ".".join(map(str, request.qemu.minimum))
            reason = f"{version} is older than {wanted}, which this target needs"
        else:
            reason = _probe(emulator, request, folder)
    if reason or emulator is None:
        for each in request.runs:
            _print(Ended(kernel=each.kernel, outcome="skipped", reason=reason, emulator=version))
        return
    with ThreadPoolExecutor(request.jobs) as pool:
        pending = [pool.submit(_run, emulator, request, each, folder, version) for each in request.runs]
        try:
            for done in as_completed(pending):
                _print(done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _probe(emulator: Path, request: EmulateRequest, folder: Path) -> str:
    """Why this emulator cannot take the CPU; empty if it can."""
    command = [str(emulator), "-cpu", request.cpu, str(folder / request.runner)]
    finished = run(command, timeout=PROBE_SECONDS, cwd=folder)
    if finished.status == 0:
        return ""
    last = finished.output.splitlines()[-1:] or [f"status {finished.status}"]
    return f"{request.qemu.binary} does not take -cpu {request.cpu}: {last[0]}"


def _run(emulator: Path, request: EmulateRequest, each: Run, folder: Path, version: str) -> Ended:
    command = [
        str(emulator),
        "-cpu",
        request.cpu,
        str(folder / request.runner),
        each.kernel,
        each.input,
        each.output,
    ]
    finished = run(command, timeout=each.timeout, cwd=folder, own_group=False)
    outcome: Outcome = "ran"
    reason = ""
    if finished.timed_out:
        outcome, reason = "timeout", f"no result after {each.timeout:.0f} s"
    elif finished.status == -signal.SIGILL:
        outcome, reason = "illegal", "an instruction that this CPU does not have"
    elif finished.status < 0:
        outcome, reason = "crash", signal.Signals(-finished.status).name
    elif finished.status in (4, 5, 6):
        outcome, reason = "wrong", RUNNER_FAULTS[finished.status]
    elif finished.status:
        reason = RUNNER_FAULTS.get(finished.status, f"status {finished.status}: {finished.output}")
        outcome = "crash"
    return Ended(kernel=each.kernel, outcome=outcome, reason=reason, emulator=version)


def _print(ended: Ended) -> None:
    print(msgspec.json.encode(ended).decode(), flush=True)


if __name__ == "__main__":
    location = Path(sys.argv[1])
    emulate(msgspec.json.decode(location.read_bytes(), type=EmulateRequest), location.parent)
