"""`python -m toolchains.bench.race REQUEST.json`: a whole network, by us and by onnxruntime in turn.

Both run in one process on one core; what is measured of each is the thread's own time, after
a run that is not, between two probes of the core's peak. The results are compared first. It
prints one line of JSON, `Raced`.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from kernels import whole
from kernels.codegen.driver import run_symbol
from kernels.errors import CheckFailedError, InputError, KernfitError
from kernels.models import runtime
from kernels.plan import NetworkPlan, Place, Plan
from kernels.whole import Reference
from toolchains.bench.harness import Call, Contestant, Harness, Sample, address
from toolchains.target import Target

PEER = "onnxruntime"
LEAST_ROUNDS, MOST_ROUNDS = 9, 61
SAMPLE_SECONDS = 2e-3
"""A sample repeats a network's run for at least so long."""
TOLD = "_kernel_time"
"""The ending of the events in onnxruntime's profile that are a node's own computation."""
REWRITTEN = re.compile("_nchwc$|/MatMul(Add|Scale)Fusion/?$")
"""What onnxruntime adds to the names of nodes that it lays out anew, or joins."""


class RaceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run: the plan's shared object `library`, its file of `weights`, and the `model`.

    `inputs` is a saved reference, of which the inputs are taken. `aliases` are for each call
    the names of the nodes and tensors that it stands for. Rounds end after `seconds`,
    but for the least number of them.
    """

    target: Target
    plan: Plan
    library: str
    weights: str
    model: str
    dims: dict[str, int]
    aliases: tuple[tuple[str, ...], ...]
    inputs: str
    seconds: float
    core: int
    layers: bool = False


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One call: its median seconds, and those of onnxruntime's nodes of its names, if it has any."""

    node: str
    kernel: str
    seconds: float
    share: float
    bytes: int
    peer: float | None = None


class Raced(msgspec.Struct, frozen=True, kw_only=True):
    """Median seconds and share of the peak of both, and what the calls took if it was asked for.

    `elsewhere` are the seconds of onnxruntime's nodes that carry no name of ours, by operator.
    """

    rounds: int
    peak: float
    seconds: float
    share: float
    peer_seconds: float
    peer_share: float
    layers: tuple[Layer, ...] = ()
    elsewhere: dict[str, float] = {}


class Memory:
    """Blocks as a program has them: whole pages of ordinary size, so that nobody's are better."""

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._held: list[Any] = []

    def block(self, size: int, data: bytes = b"") -> int:
        """The address of zeros, `data` first."""
        block = mmap.mmap(-1, max(size, len(data), 1))
        block[: len(data)] = data
        return self._keep(block, np.frombuffer(block, dtype=np.uint8))

    def file(self, path: Path) -> int:
        """The address of a file's contents, mapped."""
        with path.open("rb") as stream:
            block = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._keep(block, np.frombuffer(block, dtype=np.uint8))

    def _keep(self, *held: Any) -> int:
        self._held.append(held)
        return int(held[-1].ctypes.data)


class Ours:
    """The network's shared object on memory of its own."""

    def __init__(self, request: RaceRequest, network: NetworkPlan, reference: Reference) -> None:
        """Load it, and write its inputs."""
        self._plan, self._network, self._target = request.plan, network, request.target
        self._library = ctypes.CDLL(request.library)
        memory = self._memory = Memory()
        raw = whole.input_bytes(network, reference, request.target)
        self._blocks = {"arena": [memory.block(network.arena_bytes)], "weights": [0]}
        if network.weights_bytes:
            self._blocks["weights"] = [memory.file(Path(request.weights))]
        self._blocks["input"], self._blocks["output"] = [], []
        for port in network.inputs:
            self._blocks["input"].append(memory.block(port.bytes, raw[: port.bytes]))
            raw = raw[port.bytes :]
        self._blocks["output"] = [memory.block(port.bytes) for port in network.outputs]

    def _contestant(self, calls: list[Call]) -> Contestant:
        return Contestant(name="", calls=calls, output=np.zeros(0), alive=self)

    def whole(self) -> Contestant:
        """The network's one function."""
        structures = [
            (ctypes.c_void_p * max(1, len(self._blocks[home])))(*self._blocks[home])
            for home in ("input", "output")
        ]
        pointers = tuple(map(ctypes.addressof, structures))
        call = Call(
            function=address(getattr(self._library, run_symbol(self._plan.library))),
            integers=(*pointers, self._blocks["weights"][0], self._blocks["arena"][0]),
        )
        contestant = self._contestant([call])
        contestant.alive = self, structures
        return contestant

    def parts(self, harness: Harness) -> Contestant:
        """The calls that the function makes, each by itself."""
        kernels = {kernel.name: kernel for kernel in self._plan.kernels}
        calls = []
        for call in self._network.calls:
            scratch = 0 if call.scratch is None else self._blocks["arena"][0] + call.scratch
            function = address(getattr(self._library, kernels[call.kernel].symbol))
            calls.append(harness.call(function, (*map(self._at, call.places), scratch)))
        return self._contestant(calls)

    def _at(self, place: Place) -> int:
        return int(self._blocks[place.home][place.number]) + place.offset

    def output(self) -> bytes:
        """What the last run left."""
        return b"".join(
            ctypes.string_at(at, port.bytes)
            for at, port in zip(self._blocks["output"], self._network.outputs, strict=True)
        )


def race(request: RaceRequest) -> Raced:
    """Compare, then time in turn; CheckFailedError where the results differ."""
    os.sched_setaffinity(0, {request.core})
    network = request.plan.network
    if network is None:
        raise InputError(f"{request.plan.library} is no network")
    asked = whole.load(Path(request.inputs))
    given = asked.inputs
    session = runtime.open_session(Path(request.model), request.dims)
    names = [each.name for each in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, given), strict=True))
    reference = msgspec.structs.replace(asked, source=runtime.name(), outputs=outputs)
    ours = Ours(request, network, reference)
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(request.target, Path(folder))
        contestant = ours.whole()
        harness.compute(contestant)
        verdict = whole.judge(network, reference, ours.output(), request.target)
        if not verdict.passed:
            raise CheckFailedError(f"{request.plan.library}: {verdict.reason}")
        once = harness.sample(contestant, 1).seconds
        repeats = max(1, round(SAMPLE_SECONDS / max(once, 1e-7)))
        runners: list[tuple[str, Callable[[], Sample]]] = [
            ("", lambda: harness.sample(contestant, repeats)),
            (PEER, lambda: _sample(harness, lambda: session.run(names, given), repeats)),
        ]
        samples: dict[str, list[Sample]] = {"": [], PEER: []}
        started, rounds = time.monotonic(), 0
        while rounds < LEAST_ROUNDS or (
            rounds < MOST_ROUNDS and time.monotonic() - started < request.seconds
        ):
            for who, sample in runners if rounds % 2 else reversed(runners):
                samples[who].append(sample())
            rounds += 1
        raced = Raced(
            rounds=rounds,
            peak=median(each.peak for taken in samples.values() for each in taken),
            seconds=median(each.seconds for each in samples[""]),
            share=_share(flops_of(request.plan), samples[""]),
            peer_seconds=median(each.seconds for each in samples[PEER]),
            peer_share=_share(flops_of(request.plan), samples[PEER]),
        )
        if not request.layers:
            return raced
        nodes = _profile(request, given, names, Path(folder))
        layers, elsewhere = _layers(request, network, harness, ours, nodes)
        return msgspec.structs.replace(raced, layers=layers, elsewhere=elsewhere)


def flops_of(plan: Plan) -> int:
    """Operations of all calls, and at least one: what only moves elements is compared by shares too."""
    return max(1, sum(kernel.flops * kernel.count for kernel in plan.kernels))


def _share(flops: int, samples: list[Sample]) -> float:
    return median(flops / each.seconds / each.peak for each in samples)


def _sample(harness: Harness, run: Callable[[], Any], repeats: int) -> Sample:
    """As `harness.sample`, of a function of Python's."""
    run()
    before = harness.peak()
    start = time.thread_time()
    for _ in range(repeats):
        run()
    seconds = (time.thread_time() - start) / repeats
    return Sample(seconds=seconds, peak=(before + harness.peak()) / 2)


def _profile(
    request: RaceRequest, given: Mapping[str, Any], names: list[str], folder: Path
) -> dict[str, tuple[str, float]]:
    """By the names of its nodes, onnxruntime's operator and median seconds."""
    session = runtime.open_session(Path(request.model), request.dims, profile=folder / "profile")
    for _ in range(LEAST_ROUNDS + 1):
        session.run(names, given)
    events = json.loads(Path(session.end_profiling()).read_bytes())
    taken: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(TOLD):
            node = event["name"].removesuffix(TOLD)
            taken[node].append(event["dur"] * 1e-6)
            kinds[node] = event["args"]["op_name"]
    return {node: (kinds[node], median(seconds)) for node, seconds in taken.items()}


def _layers(
    request: RaceRequest,
    network: NetworkPlan,
    harness: Harness,
    ours: Ours,
    nodes: dict[str, tuple[str, float]],
) -> tuple[tuple[Layer, ...], dict[str, float]]:
    """Every call's time in its place among the others, and what is left of the peer's."""
    contestant = ours.parts(harness)
    harness.compute(contestant)
    rounds = [harness.each(contestant) for _ in range(LEAST_ROUNDS)]
    peak = median(peak for _, peak in rounds)
    kernels = {kernel.name: kernel for kernel in request.plan.kernels}
    left: dict[str, tuple[str, float]] = {}
    for node, (kind, seconds) in nodes.items():
        _, before = left.get(_plain(node), ("", 0.0))
        left[_plain(node)] = kind, before + seconds
    layers = []
    for number, call in enumerate(network.calls):
        kernel = kernels[call.kernel]
        seconds = median(taken[number] for taken, _ in rounds)
        found = [left.pop(name)[1] for name in request.aliases[number] if name in left]
        layers.append(
            Layer(
                node=call.node,
                kernel=kernel.name,
                seconds=seconds,
                share=kernel.flops / seconds / peak if seconds else 0.0,
                bytes=sum(operand.bytes for operand in kernel.operands),
                peer=sum(found) if found else None,
            )
        )
    elsewhere: dict[str, float] = defaultdict(float)
    for kind, seconds in left.values():
        elsewhere[kind] += seconds
    return tuple(layers), dict(elsewhere)


def _plain(node: str) -> str:
    """The name of a node, or of its result, before onnxruntime rewrote it."""
    return REWRITTEN.sub("", node)


def main(path: str) -> int:
    """Race as the request at `path` says; the error, if any, is the last line printed."""
    try:
        raced = race(msgspec.json.decode(Path(path).read_bytes(), type=RaceRequest))
    except KernfitError as error:
        sys.stdout.write(f"error: {error}\n")
        return error.status
    sys.stdout.write(msgspec.json.encode(raced).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
