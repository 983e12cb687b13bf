"""Conducts `invoke bench` on this machine: builds each set's library, and has it measured."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kernels.errors import CheckFailedError, EngineError, MissingToolError, UsageError, did_you_mean
from kernels.graph.planning import plan as make_plan
from kernels.models import catalog, read_listing
from kernels.plan import Kernel, Plan
from toolchains import pipeline
from toolchains.bench import building
from toolchains.bench.bars import bars_table
from toolchains.bench.contest import OURS, WINOGRAD, ContestRequest, Machine, Measured
from toolchains.bench.emulated import measure_peers
from toolchains.bench.peers import HELD, ONE_THREAD
from toolchains.bench.picture import draw
from toolchains.bench.results import (
    BenchSet,
    TargetFigures,
    building_table,
    counted_table,
    host_of,
    read,
    set_of,
    table_of,
    today,
    write,
)
from toolchains.bench.sizes import show_sizes
from toolchains.cache import ROOT
from toolchains.limits import limit
from toolchains.making import Options, make
from toolchains.native import own_target, runs_here, why_not
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.target import Target

SETS = Path(__file__).parent / "sets"
COUNTED = SETS / "counted.toml"
"""The products whose instructions are counted: weights packed, two of a convolution, one of BERT."""
BUILDING = "building"
"""What `--sets` calls the time that a build takes."""


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """Kernels that are measured together: those of a listing, or some of its operators.

    A `summed` set is compared by the time of all calls, others by the geometric mean.
    """

    title: str
    model: Path
    operators: tuple[str, ...] = ()
    summed: bool = False

    def kernels(self, plan: Plan) -> list[Kernel]:
        """The kernels of the set."""
        return [k for k in plan.kernels if not self.operators or k.kind in self.operators]


def all_sets() -> dict[str, Set]:
    """The sets by name, in the order of the table."""
    return {
        "resnet50": Set(title="ResNet-50's products", model=SETS / "resnet50.toml"),
        "bert-base": Set(title="BERT-base's products, 128 tokens", model=SETS / "bert-base.toml"),
        "square": Set(title="square products", model=SETS / "square.toml"),
        "unlisted": Set(title="shapes of no listing", model=SETS / "unlisted.toml"),
        "vector": Set(title="vector times matrix", model=SETS / "vector.toml"),
        "conv-resnet50": Set(
            title="ResNet-50's convolutions",
            model=catalog()["resnet50"],
            operators=("conv2d",),
            summed=True,
        ),
        "depthwise-mobilenet-v2": Set(
            title="MobileNet v2's depthwise convolutions",
            model=catalog()["mobilenet_v2"],
            operators=("depthwise_conv2d",),
            summed=True,
        ),
        "rows": Set(title="softmax, layer normalisation, pooling", model=SETS / "rows.toml"),
    }


def environment(target: Target) -> dict[str, str]:
    """The environment of a contest: one thread, and the peers held to the target's instructions."""
    ours = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    libraries = str(Path(sysconfig.get_path("data")) / "lib")
    path = ":".join(part for part in (libraries, os.environ.get("LD_LIBRARY_PATH", "")) if part)
    return {
        **ours,
        **ONE_THREAD,
        **HELD.get(target.name, {}),
        "LD_LIBRARY_PATH": path,
        "PYTHONPATH": str(ROOT),
    }


def measure_set(
    chosen: Set,
    target: Target,
    options: Options,
    progress: Progress,
    *,
    seconds: float,
    peers: tuple[str, ...] | None = None,
    heard: Callable[[Kernel, Measured], None] = lambda *_: None,
) -> tuple[Machine, list[tuple[Kernel, Measured]]]:
    """Make the set's library and measure its kernels; EngineError if the contest fails.

    The contest itself judges each result, on this machine; `invoke build` checks under QEMU.
    """
    program = read_listing(chosen.model)
    plan = msgspec.structs.replace(options, winograd=False).plan(program, target)
    kernels = {kernel.name: kernel for kernel in chosen.kernels(plan)}
    rivals = _rivals(options.plan(program, target)) if options.winograd else {}
    plan = msgspec.structs.replace(plan, kernels=(*kernels.values(), *rivals.values()))
    machine: list[Machine] = []
    rows: list[tuple[Kernel, Measured]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make(plan, target, options, place, progress)
        request = ContestRequest(
            target=target,
            plan=plan,
            library=str(place / f"lib{plan.library}.so"),
            contests=tuple(
                {OURS: name} | ({WINOGRAD: rivals[name].name} if name in rivals else {}) for name in kernels
            ),
            seconds=seconds,
            core=max(os.sched_getaffinity(0)),
            peers=peers,
        )
        path = place / "contest.json"
        path.write_bytes(msgspec.json.encode(request))
        with progress.bar(f"{chosen.title} on {target.name}: measuring", len(kernels)) as bar:

            def said(line: str) -> None:
                if not line.startswith("{"):
                    return
                if not machine:
                    machine.append(msgspec.json.decode(line, type=Machine))
                    return
                measured = msgspec.json.decode(line, type=Measured)
                if OURS not in measured.figures:
                    raise CheckFailedError(f"{measured.kernel} for {target.name}: {measured.refused[OURS]}")
                rows.append((kernels[measured.kernel], measured))
                heard(*rows[-1])
                bar.advance(measured.kernel)

            ended = run(
                [sys.executable, "-m", "toolchains.bench.contest", str(path)],
                timeout=limit("measure"),
                env=environment(target),
                on_line=said,
            )
    if ended.status != 0 or len(rows) != len(kernels):
        raise EngineError(f"the contest ended with status {ended.status}: {ended.output}")
    return machine[0], rows


def _rivals(plan: Plan) -> dict[str, Kernel]:
    """The kernels that compute by Winograd's algorithm, each under another name than the direct one."""
    return {
        kernel.name: msgspec.structs.replace(
            kernel, name=f"{kernel.name}_winograd", symbol=f"{kernel.symbol}_winograd"
        )
        for kernel in plan.kernels
        if kernel.winograd
    }


def bench_here(
    target: Target,
    sets: Mapping[str, Set],
    options: Options,
    progress: Progress,
    *,
    seconds: float,
    heard: Callable[[BenchSet], None],
) -> TargetFigures:
    """Measure sets on this machine."""
    found: dict[str, BenchSet] = {}
    machine: Machine | None = None
    for name, chosen in sets.items():
        machine, rows = measure_set(chosen, target, options, progress, seconds=seconds)
        found[name] = set_of(chosen.title, summed=chosen.summed, measured=rows)
        heard(found[name])
    if machine is None:
        raise UsageError("no set to measure")
    return TargetFigures(host=host_of(machine), sets=found, missing=machine.missing)


def count_instructions(target: Target, options: Options, progress: Progress) -> TargetFigures:
    """Instructions for each floating-point operation of a few products, ours and the peers', under QEMU."""
    own = count_own(target, options, progress)
    kernels = make_plan(read_listing(COUNTED), target).kernels
    peers, missing = measure_peers(target, kernels, progress.say)
    return msgspec.structs.replace(own, peers=peers, missing=missing)


def count_own(target: Target, options: Options, progress: Progress) -> TargetFigures:
    """The same of ours alone; MissingToolError if nothing here counts them."""
    program = read_listing(COUNTED)
    every = msgspec.structs.replace(options, checks="all")
    rows = pipeline.build(program, target.on_first_emulated(), every, progress).report.rows
    uncounted = next((row.insns_reason or row.reason for row in rows if row.insns is None), None)
    if not rows or uncounted:
        raise MissingToolError(
            f"{target.name}: nothing counts its instructions: {uncounted or 'no QEMU runs it'}"
        )
    flops = {kernel.name: kernel.flops for kernel in make_plan(program, target).kernels}
    insns = {row.kernel: (row.insns or 0) / flops[row.kernel] for row in rows}
    return TargetFigures(insns_per_flop=sum(insns.values()) / len(insns), insns=insns, emulated=rows[0].cpu)


def bench(
    targets: Sequence[Target],
    words: str,
    options: Options,
    progress: Progress,
    *,
    seconds: float,
    size: bool,
    show: Callable[[Any], None],
) -> None:
    """Measure, show tables, and renew bench.json and the pictures in the folder of `options`.

    Of several targets, those that can be neither timed nor counted here are named at the end.
    """
    names, extra = _chosen(words)
    path = options.out / "bench.json"
    options = msgspec.structs.replace(options, out=options.build / "bench", checks="sample")
    if size:
        sizes = show_sizes(targets, options, progress, show)
        whole = read(path)
        write(path, msgspec.structs.replace(whole, sizes={**whole.sizes, **sizes}))
        show(bars_table(read(path)))
        show(str(path))
        return
    counted: dict[str, TargetFigures] = {}
    missing: dict[str, str] = {}
    timed = {**{name: all_sets()[name] for name in names if name != BUILDING}, **extra}
    for target in targets:
        if timed:
            try:
                figures = _figures(target, timed, options, progress, seconds=seconds, show=show)
            except MissingToolError as error:
                if len(targets) == 1:
                    raise
                missing[target.name] = ", and ".join(filter(None, (why_not(target), str(error))))
                continue
            counted |= {target.name: figures} if figures.insns else {}
            missing |= {f"{target.name}, {peer}": why for peer, why in figures.missing.items()}
            _renew(path, target, figures, show)
        if BUILDING in names and (runs_here(target) or not timed):
            taken = building.measure(target, options, progress, today())
            whole = read(path)
            write(path, msgspec.structs.replace(whole, building={**whole.building, target.name: taken}))
            show(building_table(target.name, taken))
    if counted:
        show(counted_table(counted))
    for name, why in missing.items():
        show(f"left out: {name}: {why}")
    if names:
        show(bars_table(read(path)))
    show(str(path))


def _figures(
    target: Target,
    sets: Mapping[str, Set],
    options: Options,
    progress: Progress,
    *,
    seconds: float,
    show: Callable[[Any], None],
) -> TargetFigures:
    """Times where this machine runs the target, else instructions."""
    if not runs_here(target):
        return count_instructions(target, options, progress)
    return bench_here(
        target, sets, options, progress, seconds=seconds, heard=lambda found: show(table_of(found))
    )


def _renew(path: Path, target: Target, figures: TargetFigures, show: Callable[[Any], None]) -> None:
    """Put a target's figures into bench.json, where its other sets stay; draw what was timed."""
    whole = read(path)
    known = whole.targets.get(target.name, TargetFigures())
    figures = msgspec.structs.replace(
        figures, host=figures.host or known.host, sets={**known.sets, **figures.sets}
    )
    whole = msgspec.structs.replace(whole, targets={**whole.targets, target.name: figures})
    if runs_here(target) and target.name == own_target():
        whole = msgspec.structs.replace(whole, target=target.name, sets=figures.sets)
    write(path, whole)
    if figures.host is not None and figures.sets:
        picture = path.with_name(f"{target.name}.svg")
        draw(figures.host, figures.sets, target.name, picture)
        show(str(picture))


def _chosen(words: str) -> tuple[list[str], dict[str, Set]]:
    """Names of sets, and sets of the listings among the words; UsageError for what is neither."""
    if not words:
        return [*all_sets(), BUILDING], {}
    names: list[str] = []
    extra: dict[str, Set] = {}
    known = [*all_sets(), BUILDING]
    for word in words.split(","):
        if word in known:
            names.append(word)
        elif Path(word).is_file():
            extra[Path(word).stem] = Set(title=word, model=Path(word))
        else:
            raise UsageError(f"unknown set '{word}'{did_you_mean(word, known)}")
    return names, extra
