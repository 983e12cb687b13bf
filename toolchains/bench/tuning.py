"""`invoke tune`: a short search in the neighbourhood of the analytical model's schedule.

Where this machine or a board runs the target, time decides everything. Under QEMU counted
instructions choose the register tile and the unrolling alone, for they are blind to caches.
What was found goes into a file of records (`kernels.tuning`), kernel after kernel, so that an
interrupted search goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from kernels.graph.planning import plan as make_plan
from kernels.plan import Kernel, Plan, Tuned
from kernels.program import Model, Program, program_of
from kernels.schedules.blocking import Contraction
from kernels.schedules.tiling import Winograd
from kernels.tuning import RECORDS, Known, Record, RecordFile, read_file, signature_of, text
from toolchains.bench.judges import By, Candidates, Judge, find_judge
from toolchains.bench.results import today
from toolchains.cache import code_digest, digest
from toolchains.making import Options, make
from toolchains.progress import Progress
from toolchains.scratch import alone, scratch, write_whole
from toolchains.target import Target

LEAST_GAIN = 1.03
"""Less is not told from noise, nor worth a record."""
FINALISTS = 4
CONFIRMATIONS = 3
"""Of time: the least gain of so many contests between the model's schedule and the best counts, for
code and data lie elsewhere in each, which alone may make some hundredths."""


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
    options: Options,
    progress: Progress,
    folder: Path,
    heard: Callable[[Found], None],
    host: str = "",
) -> Path:
    """Search each product and convolution of a model; the file of records, renewed.

    `host` is a board, user@board:port, that is reached over ssh and runs the target.
    MissingToolError where nothing can run or count the target's code, EngineError where the
    board cannot or is lost.
    """
    path = folder / f"{target.name}.toml"
    done = options.build / "tune" / f"{target.name}.json"
    searched = [set(kind.__struct_fields__) for kind in (Contraction, Winograd)]
    plan = make_plan(program, target, winograd=options.winograd)
    kernels = [kernel for kernel in plan.kernels if set(kernel.schedule) in searched]
    tried = _tried(done)
    with find_judge(target, options, host) as judge:
        surroundings = digest(code_digest("kernels"), judge.by, judge.cpu)
        title = f"{program.name} for {target.name}: tuning by {judge.by}{f' on {host}' if host else ''}"
        with progress.bar(title, len(kernels)) as bar:
            for kernel in kernels:
                signature = signature_of(kernel)
                key = digest(signature, surroundings)
                if key not in tried:
                    found = _search(program, kernel, target, options, judge)
                    _renew(path, options.build, target, signature, found, judge)
                    heard(found)
                    tried.add(key)
                    write_whole(done, msgspec.json.encode(sorted(tried)))
                bar.advance(kernel.name)
    return path


def tune_all(
    models: Iterable[Model],
    targets: Sequence[Target],
    options: Options,
    progress: Progress,
    folder: Path | None,
    host: str,
) -> Iterator[Path]:
    """Search for each model and target, and say what is found; files of records, of `folder` or shipped."""

    def heard(found: Found) -> None:
        progress.say(str(found))

    for model in models:
        for target in targets:
            yield tune(program_of(model), target, options, progress, folder or RECORDS, heard, host)


def _tried(path: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except (OSError, msgspec.DecodeError):
        return set()


def _renew(path: Path, build: Path, target: Target, signature: str, found: Found, judge: Judge) -> None:
    """Put the record, if there is one, in the place of an older one of that kernel, or take that away."""
    record = Record(
        kernel=signature,
        schedule=found.schedule,
        gain=found.gain,
        by=judge.by,
        cpu=judge.cpu,
        date=today(),
    )
    with alone(build, f"records-{digest(str(path.resolve()))[:16]}", lambda: None):
        before = read_file(path, target.name).record
        after = [each for each in before if each.kernel != signature] + [record] * found.recorded
        if after or before:
            write_whole(path, text(RecordFile(target=target.name, record=tuple(after))).encode())


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
        yield from _waiting(base, target)
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
    yield {"prefetch_image": 1 - int(base["prefetch_image"])}
    yield {"prefetch_result": 1 - int(base["prefetch_result"])}
    for lines in (0, 1, 2, 4):
        yield {"prefetch_panel": lines}


def _waiting(base: Tuned, target: Target) -> Iterator[Tuned]:
    """Smaller blocks, whose tiles ask for the whole of the next panel; narrow tiles among them.

    Where panels come from beyond the second level, a narrow tile leaves more of what that
    level delivers to them.
    """
    narrow = 2 * target.cpu.lanes
    rows = (target.cpu.vector_registers - 4) // (2 * target.cpu.register_group)
    for mr, nr in ((int(base["mr"]), int(base["nr"])), (rows, min(narrow, int(base["nr"])))):
        for part in (1, 2, 4):
            mc = -(-int(base["mc"]) // part)
            lines = -(-nr // -(-mc // mr))
            yield {"mr": mr, "nr": nr, "mc": mc, "prefetch_panel": lines}


def _blocks_of_tiles(base: Tuned) -> Iterator[Tuned]:
    """Of Winograd's algorithm: blocks of half and twice as many lines of tiles."""
    lines = int(base.get("lines", 0))
    for other in (lines // 2, 2 * lines):
        if other:
            yield {"lines": other}


def _search(program: Program, kernel: Kernel, target: Target, options: Options, judge: Judge) -> Found:
    """Try the neighbours; of time the best of them again, and the very best thrice, for an honest gain."""
    schedules = neighbours(kernel, target, judge.by)
    with scratch(options.build, f"tune-{target.name}") as folder:
        plan = _candidates(program, kernel, schedules, target, options)
        candidates = Candidates(plan=plan, place=folder)
        make(plan, target, options, candidates.place, Progress(quiet=True))
        own, *others = candidates.names
        costs = judge.costs(candidates, candidates.names)
        ranked = _ranked(costs, others)
        if judge.by == "time":
            costs = judge.costs(candidates, (own, *ranked[:FINALISTS]))
            ranked = _ranked(costs, others)
        schedule, gain = kernel.schedule, 1.0
        if own in costs and ranked:
            (winner,) = candidates.kernels(ranked[:1])
            schedule, gain = winner.schedule, costs[own] / costs[winner.name]
        if judge.by == "time" and gain >= LEAST_GAIN:
            gain = _confirmed(candidates, (own, ranked[0]), judge)
    return Found(
        kernel=kernel.name,
        tried=len(schedules),
        schedule=schedule,
        gain=gain,
        recorded=gain >= LEAST_GAIN,
    )


def _ranked(costs: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """Those that have a cost, the least first."""
    return sorted((name for name in names if name in costs), key=costs.__getitem__)


def _confirmed(candidates: Candidates, both: tuple[str, str], judge: Judge) -> float:
    """The least gain of the second over the first in several contests; 1 if one could not be run."""
    own, winner = both
    contests = [judge.costs(candidates, both) for _ in range(CONFIRMATIONS)]
    if not all(name in costs for costs in contests for name in both):
        return 1.0
    return min(costs[own] / costs[winner] for costs in contests)


def _candidates(
    program: Program, kernel: Kernel, schedules: list[Tuned], target: Target, options: Options
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
