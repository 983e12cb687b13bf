"""Both engines give the same archive, and no container is left behind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kernels.models import read_model
from tests.clones import SEVERAL
from tests.emulation.cases import listing
from tests.targets import FEW
from toolchains.engines.docker_engine import DockerEngine
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import NATIVE, Target, all_targets, find_target


@pytest.mark.parametrize("target", [find_target(name) for name in FEW], ids=FEW)
def test_both_engines_give_the_same_archive(
    target: Target, docker_engine: DockerEngine, options: Options, tmp_path: Path
) -> None:
    compare(SEVERAL, target, docker_engine, options, tmp_path)


@pytest.mark.everything
@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_both_engines_give_the_same_archive_of_every_kind_of_kernel(
    target: Target, docker_engine: DockerEngine, options: Options, tmp_path: Path
) -> None:
    compare(listing(), target, docker_engine, options, tmp_path)


def compare(
    text: str, target: Target, docker_engine: DockerEngine, options: Options, tmp_path: Path
) -> None:
    """Build a listing with both."""
    path = tmp_path / "compared.toml"
    path.write_text(text, encoding="utf-8")
    program = read_model(path)
    local = build(program, target, options, Progress())
    contained = msgspec.structs.replace(
        options, engine=docker_engine, out=tmp_path / "dist", build=tmp_path / "build"
    )
    docked = build(program, target, contained, Progress())
    assert not docked.cached
    for result in (local, docked):
        assert not result.report.failed()
    for row in docked.report.skipped():
        assert row.cpu == NATIVE, "Docker's QEMU is new enough for every target"
    assert docked.sha256 == local.sha256
