"""Builds in containers that are killed, interrupted or terminated at random moments."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.faults import Project, Undisturbed, containers, interrupt, killed_builds
from toolchains.engines.docker_engine import DockerEngine
from toolchains.target import find_target

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.everything)])
def test_killed_builds_in_containers_leave_what_was_good_and_go_on(
    docker_engine: DockerEngine, tmp_path: Path, kills: int
) -> None:
    docker_engine.prepare(find_target("riscv64"), print)
    killed_builds(Undisturbed(tmp_path / "undisturbed"), tmp_path / "project", "docker", kills)
    assert not containers(tmp_path / "project")


@pytest.mark.parametrize("times", [2, pytest.param(25, marks=pytest.mark.everything)])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_build_in_containers_ends_at_once_and_leaves_none(
    docker_engine: DockerEngine, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    docker_engine.prepare(find_target("riscv64"), print)
    project, chance = Project(tmp_path / "project"), np.random.default_rng(times)
    words = project.words("build", "docker")
    project.write("a", slow=True)
    for _ in range(times):
        assert interrupt(project, words, number, chance.uniform(1.0, 8.0)) is not None
        assert not containers(project.folder)
    project.assert_clean()
