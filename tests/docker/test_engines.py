"""Both engines give the same archive; containers are cages, and none is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import docker
from kernels.errors import EngineError
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


PROBE = """
import os, socket
from pathlib import Path

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
assert os.getuid() != 0 and os.getgid() != 0
assert int(status["CapEff"], 16) == 0
assert status["NoNewPrivs"].strip() == "1"
for path in ("/probe", "/kernfit/kernels/probe", "/kernfit/toolchains/probe", "/usr/probe"):
    try:
        Path(path).write_text("x")
    except OSError:
        continue
    raise SystemExit(f"{path} can be written")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=3)
except OSError as error:
    assert error.errno == 101, error  # network unreachable: there is no route at all
else:
    raise SystemExit("there is a network")
assert not [name for name in os.environ if name.startswith("SECRET")]
Path("/work/written").write_text("x")
"""


def test_a_container_is_a_cage(
    docker_engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    docker_engine.prepare(find_target("riscv64"), print)
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    docker_engine.run("cProfile", tmp_path / "probe.py", find_target("riscv64"))
    assert (tmp_path / "written").exists()
    with pytest.raises(EngineError, match="failed with status"):
        docker_engine.run("cProfile", tmp_path / "missing.py", find_target("riscv64"))


def test_a_step_over_its_time_is_ended(docker_engine: DockerEngine, tmp_path: Path) -> None:
    docker_engine.prepare(find_target("riscv64"), print)
    (tmp_path / "sleep.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    started = time.monotonic()
    with pytest.raises(EngineError, match="over its time limit"):
        docker_engine.run("cProfile", tmp_path / "sleep.py", find_target("riscv64"), timeout=3)
    assert time.monotonic() - started < 30


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
