"""Runs every kernel of a linked library on every processor of its target, and judges."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from kernels.errors import EngineError
from kernels.plan import Kernel, Plan
from kernels.whole import Reference
from toolchains import opinion
from toolchains.archive import file_sha256
from toolchains.cache import Store, digest
from toolchains.disassembly import Function, executed_in, functions, mnemonics, vector_instructions
from toolchains.emulate import COUNTER, JOBS, RUNNER, EmulateRequest, Ended, Run
from toolchains.engines import Engine
from toolchains.events import Outcome, Work
from toolchains.limits import limit
from toolchains.progress import Progress
from toolchains.report import Report, Row, Status
from toolchains.scratch import scratch, write_whole
from toolchains.share import Share
from toolchains.subjects import OneKernel, Subject, WholeRun
from toolchains.target import Target

Checks = Literal["all", "sample"]
Guards = Literal["all", "small"]
GUARDED_FLOPS = 4_000_000
"""A kernel of no more is guarded in every check: that takes two calls more, of some milliseconds.
Larger ones, which take minutes under QEMU, are guarded on the target's first processor, where asked."""
SAMPLED_FLOPS = 1_000_000_000
"""A whole network of more, which takes minutes, is in a sample on the target's first processor alone."""
BLOCKS = ("mc", "kc", "lines", "across")
"""Parameters of a schedule that are sizes."""
ENDED: dict[Status, Outcome] = {
    "pass": "done",
    "wrong": "failed",
    "illegal": "failed",
    "crash": "failed",
    "timeout": "failed",
    "skipped": "skipped",
}
STORED: dict[Status, Outcome] = {**ENDED, "pass": "cached"}
"""What the events say of rows: those of checks that ran, and those that stood before."""
NOT_SAMPLED = "not in the sample that --check sample takes"


def sample(plan: Plan) -> set[str]:
    """Names of kernels that stand for the others: of those made by one schedule, the smallest.

    Kernels are alike when they differ in sizes alone: the same operator with the same
    attributes, schedule and epilogue, and the same may be in place.
    """
    alike: dict[str, Kernel] = {}
    for kernel in plan.kernels:
        attributes = {name: value for name, value in kernel.attributes.items() if name != "filters"}
        schedule = {name: value for name, value in kernel.schedule.items() if name not in BLOCKS}
        steps = [step.kind for step in kernel.epilogue]
        key = digest(kernel.kind, attributes, schedule, steps, kernel.in_place)
        if key not in alike or kernel.flops < alike[key].flops:
            alike[key] = kernel
    return {kernel.name for kernel in alike.values()}


class Remembered:
    """Rows of checks that passed, so that an interrupted build goes on where it stood.

    A row is found again only if the kernel, its object file, the processor and all that
    surrounds the check (target, engine, kernfit's own code) are the same.
    """

    def __init__(self, store: Store, surroundings: str, place: Path) -> None:
        """`surroundings` is a digest; the object files lie in `place`."""
        self._store, self._surroundings, self._place = store, surroundings, place

    def _key(self, subject: Subject, cpu: str) -> str:
        objects = (self._place / f"{symbol}.o" for symbol in subject.objects)
        code = [file_sha256(path) for path in objects]
        return digest(self._surroundings, subject.identity, code, cpu)

    def find(self, subject: Subject, cpu: str, *, guarded: bool) -> Row | None:
        """The row of a check that passed before; where it must be `guarded`, of one that was."""
        data = self._store.get(self._key(subject, cpu))
        row = msgspec.json.decode(data, type=Row) if data else None
        return row if row is None or row.guarded or not guarded else None

    def keep(self, subject: Subject, row: Row) -> None:
        """Remember the row if the check passed."""
        if row.status == "pass":
            self._store.put(self._key(subject, row.cpu), msgspec.json.encode(row))


class Checking(msgspec.Struct, frozen=True, kw_only=True):
    """What is checked, and where: the linked library of `plan` lies in `place`.

    It is run in a folder below `build`, on the processors of its `share`. `histogram` divides the
    counted instructions by their mnemonics. Kernels that are not in `only` are skipped, and rows that
    are `remembered` taken over. `reference` is what a whole network is judged against. `guards` says
    which are also run on special numbers, with every buffer at a page that must not be touched.
    """

    plan: Plan
    target: Target
    engine: Engine
    share: Share
    place: Path
    build: Path
    histogram: bool = False
    only: Collection[str] | None = None
    remembered: Remembered | None = None
    reference: Reference | None = None
    guards: Guards = "small"

    def _guarded(self, subject: Subject, cpu: str) -> bool:
        if subject.flops <= GUARDED_FLOPS:
            return True
        return self.guards == "all" and cpu == self.target.checked_on[0]

    def _sampled(self, subject: Subject, cpu: str) -> bool:
        """Whether a sample takes it, if there is to be one."""
        if self.only is None or subject.name in self.only:
            return True
        return subject.always and (subject.flops <= SAMPLED_FLOPS or cpu == self.target.checked_on[0])

    def subjects(self) -> list[Subject]:
        """Every kernel, and the whole network if there is one."""
        found: list[Subject] = [OneKernel(kernel, self.target) for kernel in self.plan.kernels]
        if self.plan.network is not None and self.reference is not None:
            found.append(WholeRun(self.plan, self.plan.network, self.reference, self.target, self.place))
        return found

    def run(self, progress: Progress) -> Report:
        """Run everything on every emulated CPU of the target, and judge."""
        plan, target = self.plan, self.target
        subjects = self.subjects()
        rows: list[Row] = []
        due = {cpu: self._due(subjects, cpu, rows) for cpu in target.checked_on}
        total = sum(map(len, due.values()))
        told = sum(STORED[row.status] != "cached" for row in rows)
        with (
            scratch(self.build, f"check-{plan.library}-{target.name}") as folder,
            progress.work("check", plan.library, target.name, total + told) as work,
        ):
            for row in rows:
                work.part(row.kernel, STORED[row.status], detail=f"{row.status} on {row.cpu}")
            for name in (RUNNER, COUNTER):
                shutil.copy(self.place / name, folder / name)
            for subject in {each.name: each for waiting in due.values() for each in waiting}.values():
                subject.write_input(folder / f"{subject.name}.in")
                if any(self._guarded(subject, cpu) for cpu in target.checked_on):
                    subject.write_input(folder / f"{subject.name}.special", special=True)
            code = functions(folder / RUNNER, target) if total else {}
            for cpu, waiting in due.items():
                if waiting:
                    rows += self._run(cpu, waiting, code, folder, work)
        lost = len(subjects) * len(target.checked_on) - len(rows)
        if lost:
            raise EngineError(f"{target.name}: {lost} checks ended without a word on how they went")
        order = {subject.name: number for number, subject in enumerate(subjects)}
        rows = opinion.compare(rows)
        rows.sort(key=lambda row: (target.checked_on.index(row.cpu), order[row.kernel]))
        return Report(
            library=plan.library,
            target=target.name,
            engine=self.engine.identity(target),
            reference=self.reference.source if self.reference else "",
            rows=tuple(rows),
        )

    def _due(self, subjects: Iterable[Subject], cpu: str, rows: list[Row]) -> list[Subject]:
        """What is to be run on a processor, the longest first; the other rows are added."""
        waiting = []
        for subject in sorted(subjects, key=lambda subject: -subject.flops):
            guarded = self._guarded(subject, cpu)
            row = self.remembered.find(subject, cpu, guarded=guarded) if self.remembered else None
            if row is not None:
                rows.append(row)
            elif not self._sampled(subject, cpu):
                rows.append(_skipped(subject, self.target, cpu))
            else:
                waiting.append(subject)
        return waiting

    def _run(
        self, cpu: str, waiting: list[Subject], code: dict[str, Function], folder: Path, work: Work
    ) -> list[Row]:
        """Run functions on one processor, and ask another one about what fails; `code` is the runner's."""
        subjects = {subject.name: subject for subject in waiting}

        def told(row: Row) -> None:
            if self.remembered:
                self.remembered.keep(subjects[row.kernel], row)
            work.part(row.kernel, ENDED[row.status], detail=f"{row.status} on {cpu}")

        rows = self._rows(cpu, waiting, code, folder, work, told)
        bad = {row.kernel: row for row in rows if opinion.failed(row)}
        if not bad:
            return rows

        def ask(kernels: Collection[str], *, other: bool, guards: bool) -> dict[str, Row]:
            again = [subjects[name] for name in kernels]
            found = self._rows(cpu, again, code, folder, work, lambda _: None, other=other, guards=guards)
            return {row.kernel: row for row in found}

        own = {name: _texts(subjects[name], code) for name in bad}
        settled = opinion.settle(bad, ask, own)
        if self.remembered:
            for name, row in settled.items():
                self.remembered.keep(subjects[name], row)
        return [settled.get(row.kernel, row) for row in rows]

    def _rows(
        self,
        cpu: str,
        waiting: list[Subject],
        code: dict[str, Function],
        folder: Path,
        work: Work,
        told: Callable[[Row], None],
        *,
        other: bool = False,
        guards: bool = True,
    ) -> list[Row]:
        """How functions fared on one processor, `told` as soon as they have ended."""
        rows: list[Row] = []
        target = self.target
        subjects = {subject.name: subject for subject in waiting}
        for name in subjects:
            for suffix in ("out", "guarded"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)

        def judged(line: str) -> None:
            if not line.startswith("{"):
                work.output(line)
                return
            ended = msgspec.json.decode(line, type=Ended)
            subject = subjects[ended.kernel]
            row = _row(subject, target, cpu, ended, folder, guarded=guards and self._guarded(subject, cpu))
            if ended.blocks is not None:
                own = [code[symbol] for symbol in subject.symbols]
                row = _counted(row, ended.blocks, own, target, histogram=self.histogram)
            told(row)
            rows.append(row)

        def run(subject: Subject) -> Run:
            name, guarded = subject.name, guards and self._guarded(subject, cpu)
            return Run(
                kernel=name,
                input=f"{name}.in",
                output=f"{name}.out",
                timeout=limit("check") + (3 if guarded else 1) * subject.flops / 2e6,
                guarded=(f"{name}.special", f"{name}.guarded") if guarded else None,
                code=(
                    min(code[symbol].start for symbol in subject.symbols),
                    max(code[symbol].end for symbol in subject.symbols),
                ),
            )

        request = EmulateRequest(
            target=target,
            cpu=cpu,
            runs=tuple(map(run, waiting)),
            other=other,
        )
        path = folder / "emulate.json"
        write_whole(path, msgspec.json.encode(request))
        with self.share.told_in(folder / JOBS):
            work.held(self.engine.run("toolchains.emulate", path, target, on_line=judged))
        return rows


def _texts(subject: Subject, code: dict[str, Function]) -> list[str]:
    return [text for symbol in subject.symbols for text in code[symbol].texts]


def _skipped(subject: Subject, target: Target, cpu: str) -> Row:
    return Row(
        kernel=subject.name,
        target=target.name,
        cpu=cpu,
        status="skipped",
        reason=NOT_SAMPLED,
        insns_reason="it did not run",
    )


def _row(subject: Subject, target: Target, cpu: str, ended: Ended, folder: Path, *, guarded: bool) -> Row:
    row = Row(
        kernel=subject.name,
        target=target.name,
        cpu=cpu,
        status="pass" if ended.outcome == "ran" else ended.outcome,
        reason=ended.reason,
        emulator=ended.emulator,
        insns_reason=ended.uncounted,
        vector_bits=ended.vector_bits or None,
        guarded=guarded and ended.outcome == "ran",
    )
    if ended.outcome != "ran":
        return row
    verdict = subject.judge((folder / f"{subject.name}.out").read_bytes())
    if verdict.passed and guarded:
        special = subject.judge((folder / f"{subject.name}.guarded").read_bytes(), special=True)
        if not special.passed:
            reason = f"with special numbers among its inputs: {special.reason}"
            verdict = msgspec.structs.replace(special, reason=reason)
    return msgspec.structs.replace(
        row,
        status="pass" if verdict.passed else "wrong",
        error=verdict.error,
        bound=verdict.bound,
        reason=verdict.reason,
    )


def _counted(
    row: Row,
    blocks: Iterable[tuple[int, int, int]],
    own: Sequence[Function],
    target: Target,
    *,
    histogram: bool,
) -> Row:
    executed = list(executed_in(own, blocks))
    return msgspec.structs.replace(
        row,
        insns=sum(runs for _, runs in executed),
        vector_insns=vector_instructions(executed, target),
        mnemonics=mnemonics(executed) if histogram else None,
    )
