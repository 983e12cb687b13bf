"""bench.json: what the bench measured, and the table that is printed of it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from kernels.plan import Kernel
from toolchains import processor
from toolchains.bench.building import Building
from toolchains.bench.contest import OURS, WINOGRAD, Machine, Measured
from toolchains.bench.sizes import Size
from toolchains.scratch import write_whole

NETWORKS = "networks"
"""The name of the set whose rows are whole models."""


class PeerFigure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A peer on one kernel: its share of the peak, and our speed over its."""

    share: float
    ratio: float


class BenchRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel. `bytes` are those of its operands; `peak` is in operations per second.

    `refused` says of a peer why its result does not count. Our own kernel by Winograd's
    algorithm stands among the peers, if it took part.
    """

    kernel: str
    count: int
    flops: int
    bytes: int
    seconds: float
    peak: float
    share: float
    schedule: dict[str, int | str]
    record: str
    peers: dict[str, PeerFigure]
    refused: dict[str, str]

    @property
    def best(self) -> float | None:
        """Our speed over that of the best peer; None without peers."""
        return min((peer.ratio for name, peer in self.peers.items() if name != WINOGRAD), default=None)

    @property
    def fast(self) -> float:
        """The share of our time that is left with Winograd's algorithm, where it took part; else 1."""
        return self.peers[WINOGRAD].ratio if WINOGRAD in self.peers else 1.0


class BenchSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A set: geometric means of our share, and of our speed over each peer's and the best's.

    Where the kernels are the calls of a network (`summed`), the speeds over a peer's are of
    the sums of all calls' times instead, over the kernels that the peer knows.
    """

    title: str
    summed: bool
    share: float
    ratio: dict[str, float]
    rows: tuple[BenchRow, ...]
    winograd: dict[str, float] = {}


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine: its processor, the peak of a core and what it reads by level, per second."""

    cpu: str
    peak: float
    bandwidth: dict[str, float]
    date: str


class TargetFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of one target: times where a machine runs it, else instructions.

    `insns_per_flop` is the mean over `insns`, by the processor that QEMU emulated.
    """

    host: Host | None = None
    sets: dict[str, BenchSet] = {}
    insns_per_flop: float | None = None
    insns: dict[str, float] = {}
    emulated: str = ""
    peers: dict[str, float] = {}
    missing: dict[str, str] = {}


class Bench(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of bench.json; `sets` are those of `target`, this machine's own."""

    target: str = ""
    sets: dict[str, BenchSet] = {}
    targets: dict[str, TargetFigures] = {}
    sizes: dict[str, Size] = {}
    building: dict[str, Building] = {}


def set_of(title: str, *, summed: bool, measured: Sequence[tuple[Kernel, Measured]]) -> BenchSet:
    """A set from what was measured."""
    return summary_of(title, tuple(_row(kernel, each) for kernel, each in measured), summed=summed)


def summary_of(title: str, rows: tuple[BenchRow, ...], *, summed: bool) -> BenchSet:
    """A set of rows, with their means."""
    names = dict.fromkeys(name for row in rows for name in row.peers)
    ratio = {name: _ratio(rows, name, summed=summed) for name in names if name != WINOGRAD}
    fast: dict[str, float] = {}
    if WINOGRAD in names:
        fast = {name: _ratio(rows, name, summed=summed, fast=True) for name in (OURS, *ratio)}
    best = [row.best for row in rows if row.best is not None]
    if best:
        ratio["best"] = _mean(best)
    return BenchSet(
        title=title,
        summed=summed,
        share=_mean([row.share for row in rows]),
        ratio=ratio,
        rows=rows,
        winograd=fast,
    )


def _row(kernel: Kernel, measured: Measured) -> BenchRow:
    ours = measured.figures[OURS]
    return BenchRow(
        kernel=kernel.name,
        count=kernel.count,
        flops=kernel.flops,
        bytes=sum(operand.bytes for operand in kernel.operands),
        seconds=ours.seconds,
        peak=measured.peak,
        share=ours.share,
        schedule=kernel.schedule,
        record=kernel.record,
        peers={
            name: PeerFigure(share=figure.share, ratio=ours.share / figure.share)
            for name, figure in measured.figures.items()
            if name != OURS
        },
        refused=measured.refused,
    )


def _ratio(rows: Sequence[BenchRow], peer: str, *, summed: bool, fast: bool = False) -> float:
    """Our speed over a peer's, in the mean or in the sum of all calls, `fast` with Winograd's algorithm."""
    known = [row for row in rows if peer in row.peers or peer == OURS]
    ratios = [1.0 if peer == OURS else row.peers[peer].ratio for row in known]
    shares = [row.fast if fast else 1.0 for row in known]
    if not summed:
        return _mean([ratio / share for ratio, share in zip(ratios, shares, strict=True)])
    times = [row.count * row.seconds for row in known]
    ours = sum(time * share for time, share in zip(times, shares, strict=True))
    return sum(time * ratio for time, ratio in zip(times, ratios, strict=True)) / ours


def _mean(values: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def host_of(machine: Machine) -> Host:
    """The machine as it tells of itself."""
    return Host(cpu=processor.here(), peak=machine.peak, bandwidth=machine.bandwidth, date=today())


def today() -> str:
    """The date, in UTC."""
    return dt.datetime.now(dt.UTC).date().isoformat()


def read(path: Path) -> Bench:
    """What an earlier run left; nothing where there is none, or another version's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Bench)
    except (OSError, msgspec.DecodeError):
        return Bench()


def write(path: Path, bench: Bench) -> None:
    """Write bench.json."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(bench), indent=1))


def table_of(chosen: BenchSet) -> Table:
    """A row for each kernel: shares of the peak in per cent, and our speed over the best peer's."""
    peers = list(dict.fromkeys(name for row in chosen.rows for name in row.peers))
    table = Table(box=None, header_style="bold", title=chosen.title, title_justify="left")
    table.add_column("kernel")
    for heading in ("us", OURS, *peers, "over the best"):
        table.add_column(heading, justify="right")
    for row in chosen.rows:
        shares = [row.peers[peer].share if peer in row.peers else None for peer in peers]
        table.add_row(
            row.kernel,
            f"{row.seconds * 1e6:.1f}",
            f"{100 * row.share:.1f}",
            *(f"{100 * share:.1f}" if share is not None else "-" for share in shares),
            f"{row.best:.2f}" if row.best is not None else "-",
            style="" if row.best is None or row.best >= 1 else "yellow",
        )
    table.add_section()
    table.add_row(
        "sum of all calls" if chosen.summed else "geometric mean",
        f"{sum(row.count * row.seconds for row in chosen.rows) * 1e6:.0f}" if chosen.summed else "",
        f"{100 * chosen.share:.1f}",
        *(f"x {chosen.ratio[peer]:.2f}" if peer in chosen.ratio else "" for peer in peers),
        f"{chosen.ratio['best']:.2f}" if "best" in chosen.ratio else "-",
        style="bold",
    )
    if chosen.winograd:
        fast = sum(row.count * row.seconds * row.fast for row in chosen.rows)
        table.add_row(
            "with Winograd's algorithm",
            f"{fast * 1e6:.0f}" if chosen.summed else "",
            f"x {chosen.winograd[OURS]:.2f}",
            *(f"x {chosen.winograd[peer]:.2f}" if peer in chosen.winograd else "" for peer in peers),
            style="bold",
        )
    return table


def counted_table(counted: Mapping[str, TargetFigures]) -> Table:
    """Instructions for each floating-point operation, by target: ours and the peers'."""
    peers = list(dict.fromkeys(name for figures in counted.values() for name in figures.peers))
    table = Table(
        box=None, header_style="bold", title="instructions for each operation", title_justify="left"
    )
    for heading in ("target", "emulated", OURS, *peers):
        table.add_column(heading, justify="left" if heading in ("target", "emulated") else "right")
    for name, figures in counted.items():
        others = [f"{figures.peers[peer]:.3f}" if peer in figures.peers else "-" for peer in peers]
        table.add_row(name, figures.emulated, f"{figures.insns_per_flop:.4f}", *others)
    return table


def building_table(target: str, taken: Building) -> Table:
    """What building ResNet-50's library took."""
    table = Table(box=None, header_style="bold", title="building ResNet-50's library", title_justify="left")
    for heading in ("target", "engine", "jobs", "from nothing", "nothing changed"):
        table.add_column(heading, justify="left" if heading in ("target", "engine") else "right")
    table.add_row(target, taken.engine, str(taken.jobs), f"{taken.cold:.1f} s", f"{taken.again:.1f} s")
    return table
