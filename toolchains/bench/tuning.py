"""`invoke tune`: a short search in the neighbourhood of the analytical model's schedule.

Where this machine runs the target, time decides everything. Under QEMU counted instructions
choose the register tile and the unrolling alone, for they are blind to caches. What was
found goes into a file of records (`kernels.tuning`), kernel after kernel, so that an
interrupted search goes on where it stood.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from kernels.errors import EngineError, MissingToolError
from kernels.graph.planning import plan as make_plan
from kernels.plan import Kernel, Plan, Tuned
from kernels.program import Program
from kernels.schedules.blocking import Contraction
from kernels.schedules.tiling import Winograd
from kernels.tuning import Known, Record, RecordFile, read_file, signature_of, text
from toolchains import pipeline
from toolchains.archive import write_whole
from toolchains.bench.contest import OURS, ContestRequest, Measured
from toolchains.bench.results import processor, today
from toolchains.bench.running import environment, runs_here
from toolchains.cache import code_digest, digest
from toolchains.checking import Checking
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.target import Target

By = Literal["time", "instructions"]

LEAST_GAIN = 1.02
"""Less is not told from noise, nor worth a record."""
FINALISTS = 4
SECONDS = 0.6
TIMEOUT = 1800.0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the search of one kernel gave: how many schedules were tried, the best, its gain."""

    kernel: str
    tried: int
    schedule: Tuned
    gain: float
    recorded: bool

    def __str__(self) -> str:
        """A line for the user."""
        end = f"{self.gain:.3f} times as fast: recorded" if self.recorded else "the model's stays"
        return f"{self.kernel}: {self.tried} schedules tried, {end}"


def tune(
    program: Program,
    target: Target,
    options: pipeline.Options,
    progress: Progress,
    folder: Path,
    heard: Callable[[Found], None],
) -> Path:
    """Search each product and convolution of a model; the file of records, renewed.

    MissingToolError where nothing can run or count the target's code.
    """
    path = folder / f"{target.name}.toml"
    done = options.build / "tune" / f"{target.name}.json"
    by: By = "time" if runs_here(target) else "instructions"
    searched = [set(kind.__struct_fields__) for kind in (Contraction, Winograd)]
    plan = make_plan(program, target, winograd=options.winograd)
    kernels = [kernel for kernel in plan.kernels if set(kernel.schedule) in searched]
    surroundings = digest(code_digest("kernels"), by, processor() if by == "time" else "")
    tried = _tried(done)
    with progress.bar(f"{program.name} for {target.name}: tuning by {by}", len(kernels)) as bar:
        for kernel in kernels:
            signature = signature_of(kernel)
            key = digest(signature, surroundings)
            if key not in tried:
                found = _search(program, kernel, target, options, by)
                if found.recorded:
                    _keep(path, target, signature, found, by)
                heard(found)
                tried.add(key)
                write_whole(done, msgspec.json.encode(sorted(tried)))
            bar.advance(kernel.name)
    return path


def _tried(path: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except (OSError, msgspec.DecodeError):
        return set()


def _keep(path: Path, target: Target, signature: str, found: Found, by: By) -> None:
    """Write the record beside those that the file holds, in the place of an older one."""
    cpu = processor() if by == "time" else f"QEMU {target.qemu.cpus[0]}"
    record = Record(
        kernel=signature, schedule=found.schedule, gain=found.gain, by=by, cpu=cpu, date=today()
    )
    others = [each for each in read_file(path, target.name).record if each.kernel != signature]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text(RecordFile(target=target.name, record=(*others, record))).encode())


def neighbours(kernel: Kernel, target: Target, by: By) -> list[Tuned]:
    """Schedules near the kernel's own, tens of them, without it.

    Register tiles one vector or up to three rows away, and other unrollings; where time is
    measured also blocks of half and twice the size, and each kind of prefetching the other way.
    """
    base = kernel.schedule
    found: list[Tuned] = []
    for change in _changes(base, target, by):
        schedule = {**base, **change}
        if schedule != base and schedule not in found and all(int(v) >= 0 for v in schedule.values()):
            found.append(schedule)
    return found


def _changes(base: Tuned, target: Target, by: By) -> Iterator[Tuned]:
    yield from _tiles(base, target)
    for steps in (1, 2, 4):
        yield {"unroll": steps}
        yield {"unroll": steps, "mr": max(1, int(base["mr"]) - 1)}
    if by == "time":
        yield from _blocks(base)
        yield from _blocks_of_tiles(base)


def _tiles(base: Tuned, target: Target) -> Iterator[Tuned]:
    """Register tiles whose accumulators and columns fit."""
    mr, nr, lanes = int(base["mr"]), int(base["nr"]), target.cpu.lanes
    columns = -(-nr // lanes)
    for wide in (columns - 1, columns, columns + 1, columns + 2):
        needed = max(1, wide * target.cpu.registers_of(lanes))
        most = target.cpu.vector_registers // needed - 1
        for rows in sorted({mr - 2, mr - 1, mr, mr + 1, mr + 2, most, most - 1}):
            if wide >= 1 and 1 <= rows <= most:
                yield {"mr": rows, "nr": wide * lanes if wide != columns else nr}


def _blocks(base: Tuned) -> Iterator[Tuned]:
    """What only time can tell of: cache blocks and prefetching."""
    mr, ku, kc, mc = (int(base[key]) for key in ("mr", "ku", "kc", "mc"))
    for part in (2, 4, 8):
        if kc // part >= ku and kc // part % ku == 0:
            yield {"kc": kc // part}
        if mc // part >= mr:
            yield {"mc": mc // part}
    image = 1 - int(base["prefetch_image"])
    yield {"prefetch_image": image}
    yield {"prefetch_result": 1 - int(base["prefetch_result"])}
    for lines in (0, 1, 2, 4):
        yield {"prefetch_panel": lines}
        yield {"prefetch_panel": lines, "prefetch_image": image}


def _blocks_of_tiles(base: Tuned) -> Iterator[Tuned]:
    """Of Winograd's algorithm: blocks of half and twice as many lines of tiles."""
    lines = int(base.get("lines", 0))
    for other in (lines // 2, 2 * lines):
        if other:
            yield {"lines": other}


def _search(program: Program, kernel: Kernel, target: Target, options: pipeline.Options, by: By) -> Found:
    """Try the neighbours; of time also the best of them again, for an honest gain."""
    judge = _timed if by == "time" else _counted
    schedules = neighbours(kernel, target, by)
    tried = len(schedules)
    costs = judge(program, kernel, schedules, target, options)
    if by == "time":
        schedules = [schedules[number] for number in _ranked(costs)[:FINALISTS]]
        costs = judge(program, kernel, schedules, target, options)
    schedule, gain = kernel.schedule, 1.0
    own, ranked = costs[0], _ranked(costs)
    if own is not None and ranked:
        schedule, gain = schedules[ranked[0]], own / (costs[ranked[0] + 1] or own)
    return Found(kernel=kernel.name, tried=tried, schedule=schedule, gain=gain, recorded=gain >= LEAST_GAIN)


def _ranked(costs: list[float | None]) -> list[int]:
    """Numbers of the schedules by their costs; the first cost is that of the model's."""
    known = [(cost, number) for number, cost in enumerate(costs[1:]) if cost is not None]
    return [number for _, number in sorted(known)]


def _candidates(
    program: Program, kernel: Kernel, schedules: list[Tuned], target: Target, options: pipeline.Options
) -> Plan:
    """The kernel by the model's schedule and by each of the others, as kernels of one library."""
    signature = signature_of(kernel)
    found = [kernel]
    for number, schedule in enumerate(schedules, 1):
        record = Record(kernel=signature, schedule=schedule, gain=1.0, by="time", cpu="", date="")
        known = {signature: Known(record=record, file="")}
        plan = make_plan(program, target, known, winograd=options.winograd)
        made = next(each for each in plan.kernels if each.name == kernel.name)
        found.append(
            msgspec.structs.replace(
                made, name=f"{kernel.name}_{number}", symbol=f"{kernel.symbol}_{number}"
            )
        )
    return Plan(library=program.name, target=target.name, source=program.source, kernels=tuple(found))


def _timed(
    program: Program, kernel: Kernel, schedules: list[Tuned], target: Target, options: pipeline.Options
) -> list[float | None]:
    """Seconds of the model's schedule and of each other, in turn in one process; None if wrong."""
    plan = _candidates(program, kernel, schedules, target, options)
    names = [OURS, *(each.name for each in plan.kernels[1:])]
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pipeline.make(plan, target, options, work, Progress(quiet=True))
        request = ContestRequest(
            target=target,
            plan=plan,
            library=str(work / f"lib{plan.library}.so"),
            contests=(dict(zip(names, (each.name for each in plan.kernels), strict=True)),),
            seconds=SECONDS,
            core=max(os.sched_getaffinity(0)),
            peers=(),
        )
        path = work / "contest.json"
        path.write_bytes(msgspec.json.encode(request))
        ended = run(
            [sys.executable, "-m", "toolchains.bench.contest", str(path)],
            timeout=TIMEOUT,
            env=environment(target),
            on_line=lines.append,
        )
    if ended.status != 0:
        raise EngineError(f"the contest ended with status {ended.status}: {ended.output}")
    measured = msgspec.json.decode(lines[-1], type=Measured)
    return [measured.figures[name].seconds if name in measured.figures else None for name in names]


def _counted(
    program: Program, kernel: Kernel, schedules: list[Tuned], target: Target, options: pipeline.Options
) -> list[float | None]:
    """Instructions of each on the first processor that QEMU emulates for the target."""
    plan = _candidates(program, kernel, schedules, target, options)
    first = msgspec.structs.replace(
        target, qemu=msgspec.structs.replace(target.qemu, cpus=target.qemu.cpus[:1]), native=None
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        quiet = Progress(quiet=True)
        pipeline.make(plan, target, options, work, quiet)
        checking = Checking(plan=plan, target=first, engine=options.engine, jobs=options.jobs, place=work)
        rows = {row.kernel: row for row in checking.run(quiet).rows}
    own = rows[kernel.name]
    if own.insns is None:
        why = own.insns_reason or own.reason
        raise MissingToolError(f"{target.name}: nothing counts its instructions: {why}")
    order: list[Any] = [rows[each.name] for each in plan.kernels]
    return [float(row.insns) if row.status == "pass" and row.insns else None for row in order]
