"""Many builds at once: bounded by processors and by memory, the longest first."""

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
    """One library for one target, and how much it takes."""

    model: Model
    target: Target
    work: int
    bytes: int

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
    each = msgspec.structs.replace(options, jobs=max(1, options.jobs // width))
    jobs = [_job(model, target, each) for model in models for target in targets]
    built: dict[str, Built] = {}
    failures: dict[str, Failure] = {}
    memory = Memory(available_bytes())

    with progress.board(names, [t.name for t in targets], len(jobs)):

        def run(job: Job) -> Built:
            with memory.taken(job.bytes):
                oracle = (oracles or {}).get(job.program.name)
                return build(job.model, job.target, each, progress, oracle)

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


def _job(model: Model, target: Target, options: Options) -> Job:
    plan = options.plan(model, target)
    work = sum(kernel.flops for kernel in plan.kernels) * len(target.checked_on)
    return Job(
        model=model,
        target=target,
        work=work,
        bytes=options.jobs * (CODE_GENERATION_BYTES + _checking(plan)),
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
            with self._changed:
                self._free += size
                self._takers -= 1
                self._changed.notify_all()
