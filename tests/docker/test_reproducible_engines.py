"""With Docker here, and without it elsewhere and by another user, a commit gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulation.test_reproducible import World, compare, elsewhere, needs_elsewhere
from toolchains.target import all_targets


@pytest.mark.everything
@needs_elsewhere
@pytest.mark.usefixtures("docker_engine")
def test_both_engines_release_the_same_for_every_target(tmp_path: Path) -> None:
    docked = World(folder="docked", env={"TZ": "America/Caracas"}, words=["--engine", "docker"])
    words = ["--arch", "all", "--model", "several.toml,net.onnx,blas", "--check", "sample"]
    compare(tmp_path, [docked, elsewhere(tmp_path)], words, 3 * len(all_targets()))
