"""Every small kernel, built once for each target."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import pytest

from kernels.models import read_model
from kernels.program import Program
from tests.emulation.cases import listing
from tests.faults import Undisturbed
from toolchains.emulators import find_emulator
from toolchains.pipeline import Built, Options, build
from toolchains.progress import Progress
from toolchains.target import Target, all_targets

TARGETS = list(all_targets().values())


@pytest.fixture(scope="session")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Program:
    path: Path = tmp_path_factory.mktemp("edges") / "edges.toml"
    path.write_text(listing(), encoding="utf-8")
    return read_model(path)


def need_counting(target: Target) -> None:
    """Skip where the emulator of this machine cannot count, as Debian 13's."""
    emulator = find_emulator(target.qemu)
    assert emulator is not None, "`invoke setup` brings it"
    if not emulator.loads_plugins:
        pytest.skip(f"{emulator.name} loads no plugins, so nothing is counted here")


@cache
def built_once(program_key: int, target: str) -> Built:
    program, options = KEPT[program_key]
    options = msgspec.structs.replace(options, guards="all")
    return build(program, all_targets()[target], options, Progress())


KEPT: dict[int, tuple[Program, Options]] = {}


def built_for(target: Target, edges: Program, options: Options) -> Built:
    """The small kernels for a target, built at the first call."""
    KEPT[id(edges)] = edges, options
    return built_once(id(edges), target.name)


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def built(request: pytest.FixtureRequest, edges: Program, options: Options) -> tuple[Target, Built]:
    return request.param, built_for(request.param, edges, options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A project of its own in which a small listing was built, and nothing went wrong."""
    return Undisturbed(tmp_path_factory.mktemp("undisturbed") / "project")
