"""Ctrl-C and SIGTERM at random moments: the status, at once, and nothing is left."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.faults import Project, in_local_engines, interrupt, need

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@in_local_engines("times", local=(3, 50), bubblewrap=(1, 20))
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_build_ends_at_once_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, engine: str, times: int, record_property: pytest.RecordProperty
) -> None:
    need(engine)
    project, chance = Project(tmp_path / "project"), np.random.default_rng(times)
    words = project.words("build", engine)
    project.write("a")
    assert project.run(words)[0] == 0
    good = project.archive()
    project.write("b", slow=True)  # it would take minutes, and ends in none
    seconds = [interrupt(project, words, number, chance.uniform(0.0, 8.0)) for _ in range(times)]
    project.assert_whole()
    project.assert_clean()
    assert project.archive() == good
    assert None not in seconds
    record_property("slowest end in seconds", max(filter(None, seconds)))
