"""What kernfit holds itself to, beside what bench.json knows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from rich.table import Table

from toolchains.bench.results import NETWORKS, Bench, BenchRow, BenchSet
from toolchains.native import why_not
from toolchains.target import find_target

AVX512, AVX2 = "x86_64-avx512", "x86_64"
ONEDNN, MKL = "onednn-packed", "mkl-packed"
KB = 1024.0


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what is measured, where it is found, and which figure is enough.

    `better` says whether a larger or a smaller figure is. `words` are those of `invoke bench` that
    measure it, and `target` whose processor must be here for that.
    """

    what: str
    bar: float
    goal: float
    found: Callable[[Bench], float | None]
    words: str
    better: Literal["more", "less"] = "more"
    unit: str = ""
    digits: int = 2
    target: str = ""

    def reaches(self, figure: float, limit: float) -> bool:
        """Whether a figure, rounded as it is shown, is at least as good as a limit."""
        shown = round(figure, self.digits)
        return shown >= limit if self.better == "more" else shown <= limit


def _set(bench: Bench, target: str, name: str) -> BenchSet | None:
    own = target or bench.target
    return bench.targets[own].sets.get(name) if own in bench.targets else None


def _ratio(target: str, name: str, peer: str, *, fast: bool = False) -> Callable[[Bench], float | None]:
    """Our speed over a peer's in a set of a target, of this machine's own where none is named."""

    def found(bench: Bench) -> float | None:
        chosen = _set(bench, target, name)
        if chosen is None:
            return None
        return (chosen.winograd if fast else chosen.ratio).get(peer)

    return found


def _least(
    target: str, name: str, of: Callable[[BenchRow], float | None]
) -> Callable[[Bench], float | None]:
    """The least figure of a set's rows."""

    def found(bench: Bench) -> float | None:
        chosen = _set(bench, target, name)
        figures = [of(row) for row in chosen.rows] if chosen else []
        return min((figure for figure in figures if figure is not None), default=None)

    return found


def _over_best(row: BenchRow) -> float | None:
    return row.best


def _over_onednn(row: BenchRow) -> float | None:
    return row.peers[ONEDNN].ratio if ONEDNN in row.peers else None


def _network(name: str) -> Callable[[Bench], float | None]:
    def of(row: BenchRow) -> float | None:
        if row.kernel.replace("_", "") != name:
            return None
        return min((peer.ratio for peer in row.peers.values()), default=None)

    return _least("", NETWORKS, of)


def _counted(target: str) -> Callable[[Bench], float | None]:
    def found(bench: Bench) -> float | None:
        return bench.targets[target].insns_per_flop if target in bench.targets else None

    return found


def _products(target: str, name: str) -> tuple[Bar, ...]:
    """Of all shapes in the mean, and of the worst, beside the best peer of each."""
    words = f"--arch {target}"
    return (
        Bar(
            what=f"{name} products, over the best of each",
            bar=1.0,
            goal=1.1 if target == AVX2 else 1.0,
            found=_ratio(target, name, "best"),
            words=words,
            target=target,
        ),
        Bar(
            what=f"{name} products, the worst shape",
            bar=0.95,
            goal=0.95,
            found=_least(target, name, _over_best),
            words=words,
            target=target,
        ),
    )


def _insns(target: str, bar: float, goal: float) -> Bar:
    return Bar(
        what=f"instructions for each operation, {target}",
        bar=bar,
        goal=goal,
        found=_counted(target),
        words=f"--arch {target}",
        better="less",
        digits=3,
    )


def _size(what: str, bar: float, goal: float, of: Callable[[Bench], list[int]]) -> Bar:
    return Bar(
        what=f"{what}, largest of all targets",
        bar=bar,
        goal=goal,
        found=lambda bench: max(of(bench), default=None) if bench.sizes else None,
        words="--size --arch all",
        better="less",
        unit="B",
        digits=0,
    )


def _seconds(what: str, bar: float, goal: float, of: Callable[[Bench], list[float]]) -> Bar:
    return Bar(
        what=what,
        bar=bar,
        goal=goal,
        found=lambda bench: max(of(bench), default=None),
        words="--sets building",
        better="less",
        unit="s",
        digits=1,
    )


def _goal(what: str, target: str, name: str, peer: str, goal: float, *, fast: bool = False) -> Bar:
    words = "--winograd" if fast else f"--arch {target}" if target else ""
    found = _ratio(target, name, peer, fast=fast)
    return Bar(what=what, bar=1.0, goal=goal, found=found, words=words, target=target)


BARS: tuple[Bar, ...] = (
    *(bar for name in ("resnet50", "bert-base", "square") for bar in _products(AVX512, name)),
    _goal("resnet50 products, over oneDNN, packed", AVX512, "resnet50", ONEDNN, 1.10),
    _goal("bert-base products, over MKL, packed", AVX512, "bert-base", MKL, 1.08),
    _goal("square products, over MKL, packed", AVX512, "square", MKL, 1.08),
    *(bar for name in ("resnet50", "bert-base", "square") for bar in _products(AVX2, name)),
    Bar(
        what="1 x 1000 x 2048, over the best",
        bar=1.0,
        goal=1.2,
        found=_least("", "vector", lambda row: row.best if row.kernel == "p1x1000x2048" else None),
        words="",
    ),
    _goal("ResNet-50's 53 convolutions, over oneDNN", "", "conv-resnet50", ONEDNN, 1 / 0.92),
    Bar(
        what="the same, the worst layer",
        bar=1 / 1.15,
        goal=1 / 1.15,
        found=_least("", "conv-resnet50", _over_onednn),
        words="",
    ),
    _goal("the same with Winograd's algorithm", "", "conv-resnet50", ONEDNN, 1 / 0.8, fast=True),
    _goal("MobileNet v2's depthwise, over oneDNN", "", "depthwise-mobilenet-v2", ONEDNN, 1 / 0.9),
    _goal("softmax, layer norm, max pooling, over the best", "", "rows", "best", 1 / 0.9),
    *(
        Bar(
            what=f"{title} whole, over onnxruntime",
            bar=1.0,
            goal=1.15,
            found=_network(name),
            words="--model",
        )
        for title, name in (
            ("ResNet-50", "resnet50"),
            ("MobileNet v2", "mobilenetv2"),
            ("BERT-base", "bertbase"),
        )
    ),
    _insns("aarch64", 0.157, 0.148),
    _insns("armv7", 0.20, 0.178),
    _insns("ppc64le", 0.178, 0.172),
    _insns("s390x", 0.21, 0.195),
    _insns("riscv64", 0.85, 0.75),
    _insns("riscv64-rvv", 0.095, 0.080),
    _insns("riscv64-rvv256", 0.048, 0.040),
    _size(
        "ResNet-50's library",
        256 * KB,
        96 * KB,
        lambda bench: [size.library for size in bench.sizes.values()],
    ),
    _size(
        "a program with one product",
        16 * KB,
        6 * KB,
        lambda bench: [size.program for size in bench.sizes.values()],
    ),
    _seconds(
        "ResNet-50's library from nothing",
        60,
        30,
        lambda bench: [each.cold for each in bench.building.values()],
    ),
    _seconds(
        "the same, nothing changed", 2, 1, lambda bench: [each.again for each in bench.building.values()]
    ),
)


def bars_table(bench: Bench) -> Table:
    """A row for each bar: our figure, or how to get it."""
    table = Table(box=None, header_style="bold", title="what is held to", title_justify="left")
    for heading in ("what", "ours", "bar", "goal", "holds"):
        table.add_column(heading, justify="left" if heading in ("what", "holds") else "right")
    for bar in BARS:
        figure = bar.found(bench)
        limits = [f"{limit:,.{bar.digits}f}" for limit in (bar.bar, bar.goal)]
        if figure is None:
            table.add_row(bar.what, "-", *limits, _to_get(bar), style="dim")
            continue
        held = bar.reaches(figure, round(bar.bar, bar.digits))
        word = "no" if not held else "goal" if bar.reaches(figure, round(bar.goal, bar.digits)) else "yes"
        unit = f" {bar.unit}" if bar.unit else ""
        table.add_row(
            bar.what, f"{figure:,.{bar.digits}f}{unit}", *limits, word, style="" if held else "yellow"
        )
    return table


def _to_get(bar: Bar) -> str:
    reason = why_not(find_target(bar.target)) if bar.target else ""
    if reason:
        return f"not here: {reason}"
    return f"not measured: invoke bench {bar.words}".rstrip()
