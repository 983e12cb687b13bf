"""`python -m toolchains.emulate REQUEST.json`: run kernels under QEMU's user mode.

One line of JSON is printed for each run, as soon as it has ended. Whether a result is
right is not judged here.
"""

from __future__ import annotations

import re
import signal
import sys
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal

import msgspec

from kernels.codegen.request import read_request
from kernels.errors import KILLED, KernfitError, ResourceError
from toolchains import processor
from toolchains.emulators import Emulator, find_emulator, find_other_emulator
from toolchains.limits import VARIABLE, limit
from toolchains.native import why_not
from toolchains.process import Finished, run
from toolchains.share import told
from toolchains.target import NATIVE, Target

RUNNER = "runner"
"""The program that calls a library's kernels (toolchains/runner)."""
COUNTER = "counter.so"
"""A plugin of QEMU that counts instructions (runner/counter.c)."""
JOBS = "jobs"
"""A file that says how many runs may go at once (toolchains/share.py)."""
COUNTER_FAILED = 10
"""QEMU's status where the counter cannot go on; it says why."""
RUNNER_FAULTS = {
    2: "the runner does not know this kernel",
    3: "the runner could not read its input or write its output",
    4: "the kernel did not return 0",
    5: "the kernel wrote outside its buffers",
    6: "the kernel did not refuse a null pointer",
    7: "read or wrote outside {output}",
    8: "the kernel's result depends on where its buffers lie",
    9: "the system takes no pages away, so nothing can be guarded",
}
"""By the runner's status, what happened; after 7 it says which buffer a kernel left."""
WRONG = (4, 5, 6, 8)
"""Statuses after which it is the kernel's answer that is wrong."""

GROWS_SECONDS = 0.5
"""How soon a share that has grown is noticed."""

Outcome = Literal["ran", "wrong", "illegal", "crash", "timeout", "skipped"]


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of one kernel; files are relative to the request's folder.

    `code` is where the kernel's function begins and ends in the runner. With a `guarded` pair of
    input and output it is called twice more, every buffer at a page that it must not touch, on
    either side.
    """

    kernel: str
    input: str
    output: str
    timeout: float
    code: tuple[int, int]
    guarded: tuple[str, str] | None = None

    @property
    def words(self) -> list[str]:
        """The runner's."""
        words = [self.kernel, self.input, self.output]
        return ["guard", *words, *self.guarded] if self.guarded else words


class EmulateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All runs of one library on one processor: a name of QEMU's, or `native`.

    Its folder holds the files that are named above. With `other` it is asked for a second
    opinion: of another QEMU, or of this machine itself.
    """

    target: Target
    cpu: str
    runs: tuple[Run, ...]
    other: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run ended; `ran` means that there is an output to be judged.

    `blocks` tell of each block of the kernel's instructions its address, its length in
    instructions, and how often it ran; or `uncounted` says why there are none.
    `vector_bits` was read from the processor, where its vectors have no fixed length.
    """

    kernel: str
    outcome: Outcome
    reason: str = ""
    emulator: str = ""
    blocks: tuple[tuple[int, int, int], ...] | None = None
    uncounted: str = ""
    vector_bits: int = 0


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """How a runner is started, what that is called, and why it cannot be, if so."""

    command: tuple[str, ...] = ()
    name: str = ""
    reason: str = ""
    uncounted: str = ""
    vector_bits: int = 0


def emulate(request: EmulateRequest, folder: Path) -> None:
    """Run everything that the request names, in its order, and print how each ended."""
    find = find_other_machine if request.other else find_machine
    machine = find(request.target, request.cpu)
    if not machine.reason:
        machine = _probed(machine, request, folder)
    if machine.reason:
        for each in request.runs:
            _print(
                Ended(kernel=each.kernel, outcome="skipped", reason=machine.reason, emulator=machine.name)
            )
        return
    waiting = deque(request.runs)
    running: set[Future[Ended]] = set()
    with ThreadPoolExecutor(max(1, len(waiting))) as pool:
        while waiting or running:
            while waiting and len(running) < told(folder / JOBS):
                running.add(pool.submit(_run, machine, waiting.popleft(), folder))
            ended, running = wait(running, GROWS_SECONDS, FIRST_COMPLETED)
            for future in ended:
                _print(future.result())


def find_machine(target: Target, cpu: str) -> Machine:
    """What runs the target's code as that processor here."""
    if cpu == NATIVE:
        return _native(target)
    binary = target.qemu.binary
    emulator = find_emulator(target.qemu)
    if emulator is None:
        return Machine(reason=f"{binary} is not installed; `invoke setup` brings it")
    if emulator.trouble:
        return Machine(reason=emulator.trouble)
    if emulator.version[:2] < target.qemu.minimum:
        wanted = ".".join(map(str, target.qemu.minimum))
        reason = f"{emulator.name} is older than {wanted}, which this target needs"
        return Machine(name=emulator.name, reason=reason)
    return _emulated(emulator, cpu)


def find_other_machine(target: Target, cpu: str) -> Machine:
    """What else runs the target's code here: this machine itself, or a QEMU of another version."""
    if cpu == NATIVE:
        return Machine(reason="nothing is asked about what this machine itself does")
    native = _native(target)
    if not native.reason:
        return native
    emulator = find_other_emulator(target.qemu)
    if emulator is None:
        return Machine(reason=f"nothing else here runs code for {target.name}")
    return _emulated(emulator, cpu)


def _emulated(emulator: Emulator, cpu: str) -> Machine:
    return Machine(
        command=(str(emulator.path), "-cpu", cpu),
        name=emulator.name,
        uncounted="" if emulator.loads_plugins else f"{emulator.name} loads no plugins",
    )


def _native(target: Target) -> Machine:
    reason = why_not(target) if target.native else "this target is not run natively"
    if reason:
        return Machine(reason=reason)
    return Machine(name=processor.here(), uncounted="it ran on the processor itself, which counts nothing")


def _probed(machine: Machine, request: EmulateRequest, folder: Path) -> Machine:
    """The machine, with a reason if it cannot run even an empty call, or has other vectors."""
    vectors = request.target.cpu.scalable
    words = ["vector"] if vectors else []
    runner = str(folder / RUNNER)
    finished = run([*machine.command, runner, *words], timeout=limit("probe"), cwd=folder, own_group=False)
    if finished.status != 0:
        last = finished.output.splitlines()[-1:] or [ended_by(finished)]
        reason = f"{request.target.qemu.binary} does not take -cpu {request.cpu}: {last[0]}"
        return msgspec.structs.replace(machine, reason=reason)
    if not machine.uncounted:
        counted = [*machine.command, *_plugin(folder, (0, 0), folder / "none"), runner]
        loaded = run(counted, timeout=limit("probe"), cwd=folder, own_group=False)
        if loaded.status != 0:
            last = loaded.output.splitlines()[-1:] or [f"status {loaded.status}"]
            uncounted = f"{machine.name} does not load the counter: {last[0]}"
            machine = msgspec.structs.replace(machine, uncounted=uncounted)
    if not vectors:
        return machine
    bits = int(finished.output, 16)
    asked = re.search(r"\bvlen=(\d+)", request.cpu)
    if bits < request.target.cpu.vector_bits or (asked and bits != int(asked[1])):
        reason = f"-cpu {request.cpu} has vectors of {bits} bits"
        return msgspec.structs.replace(machine, reason=reason)
    return msgspec.structs.replace(machine, vector_bits=bits)


def ended_by(finished: Finished) -> str:
    """How a program ended that said nothing."""
    if finished.timed_out:
        return f"no answer, which {VARIABLE}=probe=SECONDS waits for"
    return signal.Signals(-finished.status).name if finished.status < 0 else f"status {finished.status}"


def _plugin(folder: Path, code: tuple[int, int], out: Path) -> list[str]:
    """QEMU's words for the counter; a comma in a path is doubled."""
    counter, file = (str(path).replace(",", ",,") for path in (folder / COUNTER, out))
    return ["-plugin", f"{counter},from={code[0]},to={code[1]},out={file}"]


def _run(machine: Machine, each: Run, folder: Path) -> Ended:
    counts = folder / f"{each.output}.blocks"
    plugin = [] if machine.uncounted else _plugin(folder, each.code, counts)
    command = [*machine.command, *plugin, str(folder / RUNNER), *each.words]
    finished = run(command, timeout=each.timeout, cwd=folder, own_group=False)
    if finished.status == -signal.SIGKILL and not finished.timed_out:
        raise ResourceError(KILLED.format(machine.name))
    if finished.status == COUNTER_FAILED:
        raise ResourceError(f"instructions cannot be counted: {finished.output}; free some space or memory")
    outcome, reason = _outcome(finished, each)
    blocks = None
    uncounted = machine.uncounted
    if not uncounted and outcome == "ran":
        blocks = _blocks(counts)
    elif not uncounted:
        uncounted = "the kernel did not end well"
    return Ended(
        kernel=each.kernel,
        outcome=outcome,
        reason=reason,
        emulator=machine.name,
        blocks=blocks,
        uncounted=uncounted,
        vector_bits=machine.vector_bits,
    )


def _outcome(finished: Finished, each: Run) -> tuple[Outcome, str]:
    """How a runner ended, and why."""
    if finished.timed_out:
        return "timeout", f"no result after {each.timeout:.0f} s"
    if finished.status == -signal.SIGILL:
        return "illegal", "an instruction that this CPU does not have"
    if finished.status < 0:
        return "crash", signal.Signals(-finished.status).name
    if finished.status == 0:
        return "ran", ""
    return ("wrong" if finished.status in WRONG else "crash"), fault(finished)


def fault(finished: Finished) -> str:
    """What a runner says by its status, which is not 0."""
    known = RUNNER_FAULTS.get(finished.status, "status {status}: {output}")
    return known.format(status=finished.status, output=finished.output)


def _blocks(path: Path) -> tuple[tuple[int, int, int], ...]:
    """What the counter wrote."""
    lines = path.read_text(encoding="ascii").splitlines()
    path.unlink()
    return tuple((int(address), int(length), int(runs)) for address, length, runs in map(str.split, lines))


def _print(ended: Ended) -> None:
    print(msgspec.json.encode(ended).decode(), flush=True)


if __name__ == "__main__":
    location = Path(sys.argv[1])
    try:
        emulate(read_request(location, EmulateRequest), location.parent)
    except KernfitError as error:
        print(f"error: {error}", flush=True)
        raise SystemExit(error.status) from error
