"""What is held to: every bar finds its figure in bench.json, and says how to get it where it is not."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from toolchains.bench.bars import BARS, Bar, bars_table
from toolchains.bench.building import Building
from toolchains.bench.results import Bench, TargetFigures
from toolchains.native import features, lacking
from toolchains.target import find_target


def shown(bench: Bench) -> list[str]:
    stream = io.StringIO()
    Console(width=200, file=stream).print(bars_table(bench))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.what)
def test_nothing_was_measured(bar: Bar) -> None:
    assert bar.found(Bench()) is None
    assert bar.bar <= bar.goal if bar.better == "more" else bar.bar >= bar.goal


@pytest.mark.parametrize(("figure", "word"), [(0.1570, "yes"), (0.1479, "goal"), (0.1577, "no")])
def test_a_figure_is_judged_as_it_is_shown(figure: float, word: str) -> None:
    bench = Bench(targets={"aarch64": TargetFigures(insns_per_flop=figure, insns={"k": figure})})
    (line,) = [line for line in shown(bench) if "aarch64" in line]
    assert line.split()[-4:] == [f"{figure:.3f}", "0.157", "0.148", word]


def test_the_slowest_build_counts() -> None:
    fast = Building(cold=20.0, again=0.9, jobs=2, engine="local", cpu="c", date="2026-11-25")
    slow = msgspec.structs.replace(fast, cold=61.0)
    lines = [line for line in shown(Bench(building={"x86_64": fast, "armv7": slow})) if " s " in line]
    assert [line.split()[-1] for line in lines] == ["no", "goal"]


def test_what_is_missing_says_how_to_get_it() -> None:
    lines = shown(Bench())
    assert any(line.endswith("not measured: invoke bench --arch armv7") for line in lines)
    target = find_target("x86_64-avx512")
    if lacking(target):
        assert any("not here: this machine's processor lacks avx512bw" in line for line in lines)


def test_features_are_read_in_the_words_of_any_architecture(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("model name\t: a\nflags\t\t: fpu avx2\n", encoding="utf-8")
    (tmp_path / "arm").write_text("Features\t: fp asimd\n", encoding="utf-8")
    (tmp_path / "other").write_text("isa\t: rv64\n", encoding="utf-8")
    found = [features(tmp_path / name) for name in ("x86", "arm", "other")]
    assert found == [{"fpu", "avx2"}, {"fp", "asimd"}, set()]
