"""`python -m toolchains.emulate REQUEST.json`: run kernels under QEMU's user mode.

One line of JSON is printed for each run, as soon as it has ended. Whether a result is
right is not judged here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Literal

import msgspec

from toolchains.process import run
from toolchains.target import NATIVE, Native, Target

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
    """All runs of one library on one processor: a name of QEMU's, or `native`."""

    target: Target
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


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """How a runner is started, what that is called, and why it cannot be, if so."""

    command: tuple[str, ...] = ()
    name: str = ""
    reason: str = ""


def emulate(request: EmulateRequest, folder: Path) -> None:
    """Run everything that the request names, `jobs` at once, and print how each ended."""
    machine = find_machine(request.target, request.cpu)
    if not machine.reason:
        machine = _probed(machine, request, folder)
    if machine.reason:
        for each in request.runs:
            _print(
                Ended(kernel=each.kernel, outcome="skipped", reason=machine.reason, emulator=machine.name)
            )
        return
    with ThreadPoolExecutor(request.jobs) as pool:
        pending = [pool.submit(_run, machine, request, each, folder) for each in request.runs]
        try:
            for done in as_completed(pending):
                _print(done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def find_machine(target: Target, cpu: str) -> Machine:
    """What runs the target's code as that processor here."""
    if cpu == NATIVE:
        return _native(target.native)
    binary = target.qemu.binary
    emulator = find_emulator(binary)
    if emulator is None:
        return Machine(reason=f"{binary} is not installed; `invoke setup` brings it")
    number = emulator_version(emulator)
    name = f"{binary} {'.'.join(map(str, number))}"
    if number[:2] < target.qemu.minimum:
        wanted = ".".join(map(str, target.qemu.minimum))
        return Machine(name=name, reason=f"{name} is older than {wanted}, which this target needs")
    return Machine(command=(str(emulator), "-cpu", cpu), name=name)


def _native(native: Native | None) -> Machine:
    if native is None:
        return Machine(reason="this target is not run natively")
    here = platform.machine()
    if here != native.machine:
        return Machine(reason=f"this machine is {here}, not {native.machine}")
    information = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", information, re.MULTILINE)
    missing = set(native.flags) - set(found[1].split() if found else ())
    if missing:
        return Machine(reason=f"this machine's processor lacks {', '.join(sorted(missing))}")
    model = re.search(r"^model name\s*:\s*(.*)$", information, re.MULTILINE)
    return Machine(name=model[1] if model else here)


def _probed(machine: Machine, request: EmulateRequest, folder: Path) -> Machine:
    """The machine, with a reason if it cannot run even an empty call."""
    finished = run([*machine.command, str(folder / request.runner)], timeout=PROBE_SECONDS, cwd=folder)
    if finished.status == 0:
        return machine
    last = finished.output.splitlines()[-1:] or [f"status {finished.status}"]
    reason = f"{request.target.qemu.binary} does not take -cpu {request.cpu}: {last[0]}"
    return msgspec.structs.replace(machine, reason=reason)


def _run(machine: Machine, request: EmulateRequest, each: Run, folder: Path) -> Ended:
    command = [*machine.command, str(folder / request.runner), each.kernel, each.input, each.output]
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
    return Ended(kernel=each.kernel, outcome=outcome, reason=reason, emulator=machine.name)


def _print(ended: Ended) -> None:
    print(msgspec.json.encode(ended).decode(), flush=True)


if __name__ == "__main__":
    location = Path(sys.argv[1])
    emulate(msgspec.json.decode(location.read_bytes(), type=EmulateRequest), location.parent)
