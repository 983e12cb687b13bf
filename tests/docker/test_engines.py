"""Both engines give the same archive, and no container is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import docker
from kernels.models import read_model
from tests.conftest import ROOT
from tests.emulation.cases import listing
from tests.unit.test_listing import HEAD, gemm, write
from toolchains.engines.docker_engine import LABEL, DockerEngine
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import NATIVE, Target, all_targets, find_target


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.name)
def test_both_engines_give_the_same_archive(
    target: Target, docker_engine: DockerEngine, options: Options, tmp_path: Path
) -> None:
    path = tmp_path / "edges.toml"
    path.write_text(listing(), encoding="utf-8")
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_leaves_no_container(
    docker_engine: DockerEngine, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    docker_engine.prepare(find_target("riscv64"), print)
    name = f"d{status}"
    body = gemm(m="900", n="900", k=str(900 + status))
    path = write(tmp_path, body, HEAD.replace('"t"', f'"{name}"'))
    words = [
        sys.executable,
        "-m",
        "invoke",
        "build",
        "--engine",
        "docker",
        "--arch",
        "riscv64",
        "--model",
        str(path),
        "--out",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "linking" in line:
                break
        time.sleep(3)
        owned = {"label": f"{LABEL}={child.pid}"}
        client = docker.from_env()
        assert client.containers.list(filters=owned), "the build was not in a container"
        child.send_signal(number)
        child.stderr.read()
        assert child.wait(20) == status
    assert not client.containers.list(all=True, filters=owned)
    client.close()
    assert not (tmp_path / "out").exists()
