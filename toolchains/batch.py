"""Many builds at once: bounded by processors and by memory, the longest first, and no processor idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager

import msgspec

from kernels.errors import KernfitError, UsageError
from kernels.models.oracle import Oracle
from kernels.plan import Plan
from kernels.program import Model, Program, program_of
from toolchains.interruption import threads
from toolchains.machine import CODE_GENERATION_BYTES, available_bytes
from toolchains.making import Options
from toolchains.pipeline import Built, build
from toolchains.progress import Progress
from toolchains.share import Share
from toolchains.target import Target

COPIES = 7
"""Of a kernel's largest operands while it is checked: drawn, packed, in a file, in the runner's
memory, and in float64 with its bound."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A build that ended without a result."""

    name: str
    error: KernfitError


def first_line(error: KernfitError) -> str:
    """What an error says, without the output of tools that may follow."""
    return str(error).splitlines()[0]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One library for one target: its operations, its processors, and the bytes it takes for each."""

    model: Model
    target: Target
    work: int
    bytes: int
    processors: int = 1

    @property
    def program(self) -> Program:
        """What is computed."""
        return program_of(self.model)

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"{self.program.name} for {self.target.name}"


def build_all(
    models: Sequence[Model],
    targets: Sequence[Target],
    options: Options,
    progress: Progress,
    oracles: Mapping[str, Oracle] | None = None,
) -> tuple[list[Built], list[Failure]]:
    """Build every model for every target; what was built, in that order, and what was not.

    A build that fails does not keep the others from being built. An interruption ends all.
    `oracles` say, by the names of models, what networks are judged against.
    UsageError if two models have one name, for the one's archive would replace the other's.
    """
    names = [program_of(model).name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two models are named '{name}', and their archives would be too")
    width = max(1, min(options.jobs, len(models) * len(targets)))
    each = max(1, options.jobs // width)
    jobs = [_job(model, target, options, each) for model in models for target in targets]
    built: dict[str, Built] = {}
    failures: dict[str, Failure] = {}
    room = Room(Memory(available_bytes()), options.jobs, len(jobs))

    with progress.board(names, [t.name for t in targets], len(jobs)):

        def run(job: Job) -> Built:
            with room.taken(job) as share:
                oracle = (oracles or {}).get(job.program.name)
                return build(job.model, job.target, options, progress, oracle, share)

        with threads(width, options.engine.close) as pool:
            pending = {pool.submit(run, job): job for job in sorted(jobs, key=lambda job: -job.work)}
            for done in as_completed(pending):
                job = pending[done]
                try:
                    built[job.name] = done.result()
                except KernfitError as error:
                    failures[job.name] = Failure(name=job.name, error=error)
    order = [job.name for job in jobs]
    return [built[n] for n in order if n in built], [failures[n] for n in order if n in failures]


def _job(model: Model, target: Target, options: Options, processors: int) -> Job:
    plan = options.plan(model, target)
    work = sum(kernel.flops for kernel in plan.kernels) * len(target.checked_on)
    return Job(
        model=model,
        target=target,
        work=work,
        bytes=CODE_GENERATION_BYTES + _checking(plan),
        processors=processors,
    )


def _checking(plan: Plan) -> int:
    largest = max(sum(operand.bytes for operand in kernel.operands) for kernel in plan.kernels)
    whole = 0
    if plan.network is not None:
        whole = plan.network.weights_bytes + plan.network.arena_bytes
    return COPIES * max(largest, whole)


class Memory:
    """So many bytes, of which builds take their share; one always may, were it too large."""

    def __init__(self, size: int) -> None:
        """`size` in bytes."""
        self._free = size
        self._takers = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them."""
        with self._changed:
            self._changed.wait_for(lambda: size <= self._free or not self._takers)
            self._free -= size
            self._takers += 1
        try:
            yield
        finally:
            self.give_back(size)
            with self._changed:
                self._takers -= 1
                self._changed.notify_all()

    def take_more(self, size: int) -> bool:
        """Take `size` bytes more, or none: whether they were free."""
        with self._changed:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give_back(self, size: int) -> None:
        """Let others have them."""
        with self._changed:
            self._free += size
            self._changed.notify_all()


class Room:
    """Processors and memory for all jobs. Once none waits, those that run get what others leave."""

    def __init__(self, memory: Memory, processors: int, jobs: int) -> None:
        """So many processors, for so many jobs that are going to come."""
        self._memory = memory
        self._idle = processors
        self._to_come = jobs
        self._running: dict[str, tuple[Job, Share]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, job: Job) -> Iterator[Share]:
        """Wait for a job's memory, and hold that and its processors, which may become more."""
        share = Share(job.processors)
        with self._memory.taken(job.bytes * job.processors):
            with self._lock:
                self._to_come -= 1
                self._idle -= job.processors
                self._running[job.name] = job, share
                self._hand_on()
            try:
                yield share
            finally:
                with self._lock:
                    del self._running[job.name]
                    self._memory.give_back(job.bytes * (share.count - job.processors))
                    self._idle += share.count
                    self._hand_on()

    def _hand_on(self) -> None:
        """Idle processors that no job waits for, to those that have the fewest, as far as memory goes."""
        while self._idle > 0 and self._running and not self._to_come:
            job, share = min(self._running.values(), key=lambda each: each[1].count)
            if not self._memory.take_more(job.bytes):
                return
            share.grow()
            self._idle -= 1
