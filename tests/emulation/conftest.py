"""The small kernels, built once for each target."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from kernels.models import read_model
from kernels.program import Program
from tests.emulation.cases import listing
from tests.faults import Undisturbed
from tests.targets import FEW
from toolchains.emulators import find_emulator
from toolchains.pipeline import Built, Options, build
from toolchains.progress import Progress
from toolchains.target import Target, all_targets

TARGETS = list(all_targets().values())
WHOLE = (*FEW, "riscv64")
"""Targets that have all of the small kernels in every run; of the others each has its share."""
SHARES = 6
Edges = Mapping[str, Program]


@pytest.fixture(scope="session")
def edges(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Edges:
    """The small kernels for each target, by its name: all with --everything, or every sixth."""
    asked = any(map(request.config.getoption, ("--everything", "--update-golden")))
    head, *kernels = listing().split("[[kernel]]")
    programs = {}
    for number, target in enumerate(TARGETS):
        chosen = kernels if asked or target.name in WHOLE else kernels[number % SHARES :: SHARES]
        path = tmp_path_factory.mktemp("edges") / "edges.toml"
        path.write_text("[[kernel]]".join([head, *chosen]), encoding="utf-8")
        programs[target.name] = read_model(path)
    return programs


def need_counting(target: Target) -> None:
    """Skip where the emulator of this machine cannot count, as Debian 13's."""
    emulator = find_emulator(target.qemu)
    assert emulator is not None, "`invoke setup` brings it"
    if not emulator.loads_plugins:
        pytest.skip(f"{emulator.name} loads no plugins, so nothing is counted here")


BUILT: dict[str, Built] = {}


def built_for(target: Target, edges: Edges, options: Options) -> Built:
    """The small kernels for a target, built at the first call."""
    if target.name not in BUILT:
        options = msgspec.structs.replace(options, guards="all")
        BUILT[target.name] = build(edges[target.name], target, options, Progress())
    return BUILT[target.name]


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def built(request: pytest.FixtureRequest, edges: Edges, options: Options) -> tuple[Target, Built]:
    return request.param, built_for(request.param, edges, options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A project of its own in which a small listing was built, and nothing went wrong."""
    return Undisturbed(tmp_path_factory.mktemp("undisturbed") / "project")
