"""A picture of bench.json: the machine's roofline, and bars for each kernel of each set."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from kernels.errors import MissingToolError
from toolchains.bench.results import BenchSet, Host

WIDTH, HEIGHT = 12.0, 3.2
"""Inches of one panel."""
LEGEND_ABOVE = 1.25
"""Room above the bars, for the legend."""
DRAWN = ("resnet50", "bert-base", "square", "conv-resnet50", "depthwise-mobilenet-v2")


def draw(host: Host, sets: dict[str, BenchSet], target: str, path: Path) -> None:
    """Write an SVG; MissingToolError without matplotlib. No display is needed."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        raise MissingToolError("matplotlib is missing, so there is no picture: uv sync") from error
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "kernfit"
    pyplot = importlib.import_module("matplotlib.pyplot")
    drawn = {name: sets[name] for name in DRAWN if name in sets}
    figure, panels = pyplot.subplots(
        1 + len(drawn), 1, figsize=(WIDTH, HEIGHT * (1 + len(drawn))), layout="constrained", squeeze=False
    )
    _roofline(panels[0][0], host, sets, target)
    for (panel,), chosen in zip(panels[1:], drawn.values(), strict=True):
        _bars(panel, chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _roofline(panel: Any, host: Host, sets: dict[str, BenchSet], target: str) -> None:
    """Attainable speed by arithmetic intensity (Williams, Waterman, Patterson, CACM 52(4), 2009)."""
    intensities = [2.0**power for power in range(-3, 11)]
    for level, bandwidth in host.bandwidth.items():
        attainable = [min(host.peak, bandwidth * each) / 1e9 for each in intensities]
        panel.plot(intensities, attainable, linewidth=1, label=f"{level}: {bandwidth / 1e9:.0f} GB/s")
    for chosen in sets.values():
        panel.scatter(
            [row.flops / row.bytes for row in chosen.rows],
            [row.flops / row.seconds / 1e9 for row in chosen.rows],
            s=14,
            label=chosen.title,
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.set_xlabel("operations per byte of the operands")
    panel.set_ylabel("10^9 operations per second")
    panel.set_title(f"{target} on one core of {host.cpu}, {host.date}: peak {host.peak / 1e9:.0f}")
    panel.legend(fontsize=7, ncols=2, loc="lower right")


def _bars(panel: Any, chosen: BenchSet) -> None:
    peers = list(dict.fromkeys(name for row in chosen.rows for name in row.peers))
    width = 0.9 / (1 + len(peers))
    names = ["kernfit", *peers]
    for number, name in enumerate(names):
        shares = [
            row.share if name == "kernfit" else (row.peers[name].share if name in row.peers else 0.0)
            for row in chosen.rows
        ]
        places = [place + number * width for place in range(len(shares))]
        panel.bar(places, [100 * share for share in shares], width, label=name)
    panel.set_xticks(
        [place + 0.45 for place in range(len(chosen.rows))],
        [row.kernel for row in chosen.rows],
        rotation=45,
        ha="right",
        fontsize=7,
    )
    panel.set_ylabel("% of the peak")
    ours = [row.share for row in chosen.rows]
    theirs = [peer.share for row in chosen.rows for peer in row.peers.values()]
    panel.set_ylim(0, LEGEND_ABOVE * 100 * max(1.0, *ours, *theirs))
    panel.set_title(chosen.title)
    panel.legend(fontsize=7, ncols=len(names))
