"""With Docker here, and without it elsewhere and by another user, a commit gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clones import LISTING, commit_of_the_project, invoke
from tests.emulation.test_reproducible import World, compare, elsewhere, needs_elsewhere
from toolchains.engines.docker_engine import DockerEngine
from toolchains.making import VERSION
from toolchains.target import all_targets, find_target


@pytest.mark.everything
@needs_elsewhere
@pytest.mark.usefixtures("docker_engine")
def test_both_engines_release_the_same_for_every_target(tmp_path: Path) -> None:
    docked = World(folder="docked", env={"TZ": "America/Caracas"}, words=["--engine", "docker"])
    words = ["--arch", "all", "--model", "several.toml,net.onnx,blas", "--check", "sample"]
    compare(tmp_path, [docked, elsewhere(tmp_path)], words, 3 * len(all_targets()))


@pytest.mark.everything
def test_what_was_made_without_docker_is_verified_in_a_fresh_image(
    docker_engine: DockerEngine, tmp_path: Path
) -> None:
    target = find_target("s390x")
    clone = tmp_path / "clone"
    commit_of_the_project(clone, {"small.toml": LISTING})
    made = invoke(clone, "release", "--arch", target.name, "--model", "small.toml", "--engine", "local")
    assert made.returncode == 0, made.stdout
    docker_engine.prepare(target, print)
    before = docker_engine.describe(target)
    verified = invoke(
        clone, "verify", f"release/small-{VERSION}-{target.name}.tar.gz", "--engine", "docker"
    )
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.splitlines()[-1].endswith(": the same bytes")
    after = docker_engine.describe(target)
    assert after.image == before.image
    assert after.digest != before.digest, "the image was not built anew"
