"""`python -m toolchains.bench.contest REQUEST.json`: one set, all contestants in turn, on one core.

Each kernel is computed by us and by every peer that knows it, in rotating order, warm, each
sample between two probes of the core's peak. What it measured is a line of JSON for each
kernel. It is a process of its own, for the peers read their environment when they start.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from kernels import check
from kernels.errors import CheckFailedError, KernfitError
from kernels.operators.base import Estimate
from kernels.pack import pack
from kernels.plan import Kernel, Plan
from toolchains.bench.harness import (
    SAMPLE_SECONDS,
    Array,
    Call,
    Contestant,
    Harness,
    Sample,
    address,
    aligned,
)
from toolchains.bench.peers import open_peers
from toolchains.bench.peers.base import Arrays, Peer
from toolchains.target import Target

OURS = "kernfit"
WINOGRAD = "kernfit winograd"
"""Our kernel by Winograd's algorithm, beside our direct one."""
FASTEST, TRIALS = 3, 3
"""Of a peer's ways so many are compared, by so many samples each, to find the fastest."""
LEAST_ROUNDS, MOST_ROUNDS = 9, 61
OTHER_ORDERS = 4.0
"""A peer may sum in another order and by another algorithm: its bound is so many times ours."""


class ContestRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to measure: kernels of `plan`, whose shared object is `library`.

    Kernels of one contest compute the same, and each stands under the name that it takes part
    with; peers compute what the first does. `seconds` is how long each contest's rounds may take
    in all; `peers` is None for all that are here.
    """

    target: Target
    plan: Plan
    library: str
    contests: tuple[dict[str, str], ...]
    seconds: float
    core: int
    peers: tuple[str, ...] | None = None


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant: median seconds and share of the peak, and its worst error by its bound."""

    seconds: float
    share: float
    error: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel by all contestants. `refused` says why a result was no contestant."""

    kernel: str
    rounds: int
    peak: float
    figures: dict[str, Figure]
    refused: dict[str, str] = {}


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The core: multiply-add peak in operations, and reading by block size in bytes, per second."""

    peak: float
    bandwidth: dict[str, float]
    missing: dict[str, str]


class Ours:
    """A kernel of ours, through its library's shared object."""

    def __init__(self, library: Any, kernel: Kernel, name: str) -> None:
        """`library` is loaded; `kernel` is what it takes part with."""
        self.name, self.kernel, self._library = name, kernel, library

    def contestants(self, kernel: Kernel, arrays: Arrays) -> list[Contestant]:
        """The kernel's function on operands packed as it wants them; a residual in place if it may be.

        There each computation adds to what the one before left: its numbers grow evenly, so
        that even a million are far from overflow. Other inputs get buffers of their own, for
        a function of its own result, over and over, ends at numbers that cost other time.
        """
        kernel = self.kernel
        output = aligned(np.zeros(kernel.output.shape, dtype=np.float32))
        before: Array | None = None
        places = []
        for operand in kernel.operands:
            if operand.role == "output":
                places.append(output)
            elif operand.role == "residual" and operand.name == kernel.in_place:
                before = arrays[operand.name]
                places.append(output)
            else:
                array = arrays[operand.name]
                places.append(aligned(pack(array, operand.packing) if operand.packing else array))
        arena = aligned(np.zeros(kernel.arena_bytes // 4 + 16, dtype=np.float32))
        function = address(getattr(self._library, kernel.symbol))
        call = Call(function=function, integers=tuple(place.ctypes.data for place in (*places, arena)))
        alive = places, arena
        return [Contestant(name=self.name, calls=[call], output=output, alive=alive, before=before)]


def measure(
    kernel: Kernel, peers: Sequence[Peer | Ours], harness: Harness, target: Target, seconds: float
) -> Measured:
    """All contestants of one kernel."""
    arrays = check.make_inputs(kernel, target)
    estimates: dict[int, Estimate] = {}
    entered: list[Entered] = []
    refused: dict[str, str] = {}
    for peer in peers:
        planned = peer.kernel if isinstance(peer, Ours) else kernel
        if planned.winograd not in estimates:
            estimates[planned.winograd] = check.reference(planned, arrays)
        try:
            found = _enter(peer, kernel, arrays, estimates[planned.winograd], harness)
        except KernfitError as problem:
            refused[peer.name] = str(problem)
            continue
        if found is not None:
            entered.append(found)
    samples: dict[str, list[Sample]] = {each.contestant.name: [] for each in entered}
    started = time.monotonic()
    rounds = 0
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.monotonic() - started < seconds):
        first = rounds % max(1, len(entered))
        for each in entered[first:] + entered[:first]:
            samples[each.contestant.name].append(harness.sample(each.contestant, each.repeats))
        rounds += 1
    return Measured(
        kernel=kernel.name,
        rounds=rounds,
        peak=median(sample.peak for taken in samples.values() for sample in taken) if entered else 0.0,
        figures={
            each.contestant.name: Figure(
                seconds=median(sample.seconds for sample in samples[each.contestant.name]),
                share=median(
                    kernel.flops / sample.seconds / sample.peak for sample in samples[each.contestant.name]
                ),
                error=each.error,
            )
            for each in entered
        },
        refused=refused,
    )


class Entered(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The fastest way of a contestant, whose result is right: how often a sample repeats it."""

    contestant: Contestant
    repeats: int
    error: float


def _enter(
    peer: Peer | Ours, kernel: Kernel, arrays: Arrays, estimate: Estimate, harness: Harness
) -> Entered | None:
    """None where the peer does not know the kernel; CheckFailedError where its result is wrong."""
    ways = peer.contestants(kernel, arrays)
    if len(ways) > 1:
        ways = sorted(ways, key=lambda way: harness.sample(way, 1).seconds)[:FASTEST]
    best: tuple[float, Entered] | None = None
    wrong = 0.0
    for way in ways:
        harness.compute(way)
        error = _error(way, estimate)
        if not error <= (1.0 if isinstance(peer, Ours) else OTHER_ORDERS):
            wrong = max(wrong, error)
            continue
        taken = min(harness.sample(way, _repeats(way, harness)).seconds for _ in range(TRIALS))
        if best is None or taken < best[0]:
            repeats = max(1, round(SAMPLE_SECONDS / taken))
            best = taken, Entered(contestant=way, repeats=repeats, error=error)
    if best is None and ways:
        raise CheckFailedError(f"its error is {wrong:.3g} times our bound")
    return best[1] if best else None


def _repeats(way: Contestant, harness: Harness) -> int:
    return max(1, round(SAMPLE_SECONDS / max(harness.sample(way, 1).seconds, 1e-7)))


def _error(way: Contestant, estimate: Estimate) -> float:
    """The largest error of an output, as a multiple of the bound for our order of summation."""
    bound = estimate.bound(flushes_subnormals=False).ravel()
    distance = np.abs(way.output.ravel().astype(np.float64) - estimate.value.ravel())
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(distance == 0, 0.0, distance / bound)
    return float(np.nanmax(share)) if not np.isnan(distance).any() else float("inf")


def contest(request: ContestRequest) -> None:
    """Measure the kernels, one line for each, after one for the machine."""
    os.sched_setaffinity(0, {request.core})
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(request.target, Path(folder))
        peers, missing = open_peers(request.target, Path(folder)) if request.peers != () else ([], {})
        chosen = [peer for peer in peers if request.peers is None or peer.name in request.peers]
        l1, l2 = request.target.cpu.l1.bytes, request.target.cpu.l2.bytes
        sizes = {"L1": l1 // 2, "L2": l2 // 2, "L3": 4 * l2, "memory": 256 << 20}
        machine = Machine(
            peak=max(harness.peak() for _ in range(20)),
            bandwidth={name: harness.bandwidth(size) for name, size in sizes.items()},
            missing=missing,
        )
        _say(machine)
        kernels = {kernel.name: kernel for kernel in request.plan.kernels}
        library = ctypes.CDLL(request.library)
        for names in request.contests:
            ours = [Ours(library, kernels[kernel], name) for name, kernel in names.items()]
            _say(measure(ours[0].kernel, [*ours, *chosen], harness, request.target, request.seconds))


def _say(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main(path: str) -> int:
    """Measure as the request at `path` says; the error, if any, is the last line printed."""
    try:
        contest(msgspec.json.decode(Path(path).read_bytes(), type=ContestRequest))
    except KernfitError as error:
        sys.stdout.write(f"error: {error}\n")
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
