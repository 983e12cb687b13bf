"""Conducts `invoke bench --model`: whole networks by us and by onnxruntime, and what each layer takes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from kernels import whole
from kernels.codegen.driver import weights_file
from kernels.errors import CheckFailedError, EngineError, UsageError
from kernels.graph.planning import grouped
from kernels.models.oracle import oracle_for
from kernels.plan import Plan
from kernels.program import Model, Network
from toolchains.bench import results
from toolchains.bench.bars import bars_table
from toolchains.bench.race import PEER, Raced, RaceRequest, flops_of
from toolchains.bench.results import NETWORKS, BenchRow, PeerFigure, TargetFigures, summary_of, table_of
from toolchains.bench.running import environment
from toolchains.limits import limit
from toolchains.making import Options, make
from toolchains.native import own_target, runs_here
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.target import Target


def race_model(
    network: Model,
    path: Path,
    dims: Mapping[str, int],
    target: Target,
    options: Options,
    progress: Progress,
    *,
    seconds: float,
    layers: bool,
) -> tuple[BenchRow, Raced]:
    """Build a model's library, and have it measured beside onnxruntime, which reads its file.

    CheckFailedError where their results differ, EngineError if the measuring fails.
    """
    if not isinstance(network, Network):
        raise UsageError(f"{path} is a listing, which has no run of its own: --sets {path} measures it")
    options = msgspec.structs.replace(options, weights="file")
    plan = options.plan(network, target)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make(plan, target, options, place, progress, network)
        inputs = place / "inputs.npz"
        asked = oracle_for(path, dims).ask(network)
        whole.save(msgspec.structs.replace(asked, outputs={}), inputs)
        request = RaceRequest(
            target=target,
            plan=plan,
            library=str(place / f"lib{plan.library}.so"),
            weights=str(place / weights_file(plan.library)),
            model=str(path),
            dims=dict(dims),
            aliases=_aliases(plan, network),
            inputs=str(inputs),
            seconds=seconds,
            core=max(os.sched_getaffinity(0)),
            layers=layers,
        )
        (place / "race.json").write_bytes(msgspec.json.encode(request))
        progress.step(f"{plan.library} on {target.name}: measuring beside {PEER}")
        ended = run(
            [sys.executable, "-m", "toolchains.bench.race", str(place / "race.json")],
            timeout=limit("measure"),
            env=environment(target),
        )
    last = ended.output.strip().splitlines()[-1:] or [""]
    if ended.status == CheckFailedError.status:
        raise CheckFailedError(f"{target.name}: {last[0]}")
    if ended.status != 0:
        raise EngineError(f"measuring {path} ended with status {ended.status}: {ended.output}")
    raced = msgspec.json.decode(last[0], type=Raced)
    row = BenchRow(
        kernel=plan.library,
        count=1,
        flops=flops_of(plan),
        bytes=sum(each.count * operand.bytes for each in plan.kernels for operand in each.operands),
        seconds=raced.seconds,
        peak=raced.peak,
        share=raced.share,
        schedule={},
        record="",
        peers={PEER: PeerFigure(share=raced.peer_share, ratio=raced.share / raced.peer_share)},
        refused={},
    )
    return row, raced


def _aliases(plan: Plan, network: Network) -> tuple[tuple[str, ...], ...]:
    """For each call, what its nodes and tensors are called, here and in the model.

    Ours are named after the model's, with an ending where a node became several operators.
    """
    names: dict[str, tuple[str, ...]] = {}
    for operators in grouped(network.program.operators):
        own = [name for each in operators for name in (each.name, *each.outputs)]
        known = dict.fromkeys(part for name in own for part in (name, name.rpartition(".")[0]) if part)
        names[operators[-1].outputs[0]] = tuple(known)
    return tuple(names[call.tensors[-1]] for call in plan.network.calls) if plan.network else ()


def require_words(model: str, sets: str, *, of_networks: bool, size: bool) -> None:
    """UsageError where what is asked for needs networks and there are none, or the reverse."""
    if not model and (of_networks or sets == NETWORKS):
        raise UsageError("say which networks to measure: --model FILE.onnx, several with commas")
    if model and (size or sets not in ("", NETWORKS)):
        raise UsageError("--model measures whole networks: leave --sets and --size out")


def bench_models(
    models: Sequence[Model],
    paths: Sequence[Path],
    dims: Mapping[str, int],
    targets: Sequence[Target],
    options: Options,
    progress: Progress,
    *,
    seconds: float,
    layers: bool,
    show: Callable[[Any], None],
) -> None:
    """Measure models of those files, show tables, and put rows into bench.json, where others stay."""
    file = options.out / "bench.json"
    for target in targets:
        if not runs_here(target):
            raise UsageError(f"this machine does not run {target.name} itself, so networks are not timed")
        rows = []
        for model, path in zip(models, paths, strict=True):
            row, raced = race_model(
                model, path, dims, target, options, progress, seconds=seconds, layers=layers
            )
            rows.append(row)
            if layers:
                show(layer_table(row, raced))
        bench = results.read(file)
        known = bench.targets.get(target.name, TargetFigures())
        measured = {row.kernel for row in rows}
        earlier = known.sets[NETWORKS].rows if NETWORKS in known.sets else ()
        kept = [row for row in earlier if row.kernel not in measured]
        found = summary_of("whole networks", (*kept, *rows), summed=False)
        show(table_of(summary_of("whole networks", tuple(rows), summed=False)))
        figures = msgspec.structs.replace(known, sets={**known.sets, NETWORKS: found})
        bench = msgspec.structs.replace(bench, targets={**bench.targets, target.name: figures})
        if target.name == own_target():
            bench = msgspec.structs.replace(bench, target=target.name, sets=figures.sets)
        results.write(file, bench)
    show(bars_table(results.read(file)))
    show(str(file))


def layer_table(row: BenchRow, raced: Raced) -> Table:
    """A row for each call in order, then what onnxruntime spent in nodes of other names."""
    table = Table(box=None, header_style="bold", title=f"{row.kernel}, call by call", title_justify="left")
    for heading in ("node", "kernel"):
        table.add_column(heading, overflow="fold")
    for heading in ("us", "% of peak", "bytes", f"{PEER} us"):
        table.add_column(heading, justify="right")
    for layer in raced.layers:
        slower = layer.peer is not None and layer.peer < layer.seconds
        table.add_row(
            layer.node,
            layer.kernel,
            f"{layer.seconds * 1e6:.1f}",
            f"{100 * layer.share:.1f}",
            f"{layer.bytes:,}",
            "-" if layer.peer is None else f"{layer.peer * 1e6:.1f}",
            style="yellow" if slower else "",
        )
    table.add_section()
    for kind, seconds in sorted(raced.elsewhere.items(), key=lambda item: -item[1]):
        table.add_row(f"{PEER}'s other {kind} nodes", "", "", "", "", f"{seconds * 1e6:.1f}")
    ours = sum(layer.seconds for layer in raced.layers)
    named = sum(layer.peer or 0.0 for layer in raced.layers)
    table.add_row(
        "all",
        "",
        f"{ours * 1e6:.1f}",
        f"{100 * row.flops / ours / raced.peak:.1f}",
        f"{row.bytes:,}",
        f"{(named + sum(raced.elsewhere.values())) * 1e6:.1f}",
        style="bold",
    )
    return table
