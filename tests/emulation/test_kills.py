"""All or nothing: tasks that are killed outright at random moments, 200 times with `--everything`."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from kernels.tuning import read_file
from tests.emulation.conftest import need_counting
from tests.faults import Project, Releases, Undisturbed, in_local_engines, kill, killed_builds, need
from toolchains.target import find_target


@in_local_engines("kills", local=(4, 90), bubblewrap=(1, 30))
def test_killed_builds_leave_what_was_good_and_go_on(
    undisturbed: Undisturbed, tmp_path: Path, engine: str, kills: int
) -> None:
    need(engine)
    killed_builds(undisturbed, tmp_path / "project", engine, kills)


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.everything)])
def test_killed_checks_leave_what_was_built(undisturbed: Undisturbed, kills: int) -> None:
    project, chance = undisturbed.project, np.random.default_rng(kills)
    words, good = project.words("check", "local"), project.archive()
    done = 0
    while done < kills:
        done += kill(project.start(words), chance.uniform(0.0, undisturbed.seconds))
        project.assert_whole()
    status, said = project.run(words)
    assert status == 0, said
    project.assert_clean()
    assert project.archive() == good


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.everything)])
def test_killed_searches_leave_whole_records_and_go_on(tmp_path: Path, kills: int) -> None:
    need_counting(find_target("riscv64"))
    project, chance = Project(tmp_path / "project"), np.random.default_rng(kills)
    project.write("a")
    records = project.folder / "records"
    words = project.words("tune", "local", "--records", str(records))
    done, found, span = 0, 0, 20.0
    while done < kills:
        started = time.monotonic()
        child = project.start(words)
        if not kill(child, chance.uniform(0.0, span)):  # it came to its end first: once more, and earlier
            assert child.returncode == 0, project.said()
            span = time.monotonic() - started
            shutil.rmtree(project.build / "tune")
            found = 0
            continue
        done += 1
        read_file(records / "riscv64.toml", "riscv64")
        searched = len(list((project.build / "tune").glob("*.json")))
        assert searched >= found
        found = searched
    if kills > 1:
        status, said = project.run(words)
        assert status == 0, said
        project.assert_clean()


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.everything)])
def test_killed_releases_leave_the_last_one_and_go_on(tmp_path: Path, kills: int) -> None:
    releases, chance = Releases(tmp_path / "project"), np.random.default_rng(kills)
    project, good, want, done = releases.project, "b", "a", 0
    while done < kills:
        releases.check_out(want)
        child = project.start(releases.words)
        while done < kills and kill(child, chance.uniform(0.0, releases.seconds)):
            done += 1
            project.assert_whole()
            assert releases.found() in (releases.sums[good], releases.sums[want])
            child = project.start(releases.words)
        assert child.wait(600) == 0, project.said()
        assert releases.found() == releases.sums[want]
        project.assert_whole()
        project.assert_clean()
        assert not list(project.folder.glob(f".{releases.FOLDER}.*"))
        good, want = want, good
        shutil.rmtree(project.build / "cache")
