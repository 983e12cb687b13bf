"""Docker engines that die, stop or never answer, and registries likewise: a line, a hint and a status."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from docker.errors import DockerException

import docker
from tests.faults import Project, told
from toolchains.engines import base
from toolchains.engines.docker_engine import DockerEngine
from toolchains.engines.image import _knock, image_tag
from toolchains.engines.talking import LABEL
from toolchains.target import find_target

STEP = b"#!/bin/sh\necho begun\nexec sleep 600\n"
"""What steps run in the images of our own daemon: it begins, and does not end."""
APART = ("--bridge=none", "--iptables=false")
"""Without a bridge, and in a network of its own: there alone it removes the bridge of that name."""


class Daemon:
    """A Docker engine of our own: its folder, its socket, and images in which steps begin and never end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kernfit-daemon-", dir="/tmp"))
        self.host = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; a containerd that a killed one left is ended first, which it would wait for in vain."""
        left = self.folder / "exec" / "containerd" / "containerd.pid"
        if left.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(left.read_text(encoding="utf-8")), signal.SIGKILL)
            left.unlink()
        words = {
            "--data-root": "data",
            "--exec-root": "exec",
            "--pidfile": "pid",
        }
        paths = [word for flag, name in words.items() for word in (flag, str(self.folder / name))]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "dockerd", *paths, "-H", self.host, *APART, "-s", "vfs"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                _knock(self.host, 5.0)
                self.client().close()
            except (OSError, DockerException):
                time.sleep(0.2)
                continue
            return
        pytest.fail((self.folder / "log").read_text(encoding="utf-8")[-2000:])

    def client(self) -> docker.DockerClient:
        client = docker.DockerClient(self.host, timeout=30)
        client.ping()
        return client

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def bring(self, tag: str, files: dict[str, bytes]) -> None:
        """Make an image of these files."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for folder in sorted({str(parent) for name in files for parent in Path(name).parents[:-1]}):
                entry = tarfile.TarInfo(folder)  # what makes them else lets only root in
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o755
                archive.addfile(entry, io.BytesIO(data))
        client = self.client()
        repository, version = tag.split(":")
        client.api.import_image_from_data(raw.getvalue(), repository=repository, tag=version)
        client.close()

    def running(self) -> list[str]:
        client = self.client()
        found = [str(each["Id"]) for each in client.api.containers(all=True, filters={"label": LABEL})]
        client.close()
        return found

    def end(self) -> None:
        """End it and all that is of it; what a killed one left behind is ended by its name, the folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder).encode() in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)
            except OSError:
                continue
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        for line in reversed(lines):
            if str(self.folder) in line.split()[4]:
                subprocess.run(["umount", "--lazy", line.split()[4]], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def shell() -> dict[str, bytes]:
    """The machine's shell and `sleep`, and the libraries that they are linked with, by path."""
    programs = [Path(shutil.which(name) or "") for name in ("sh", "sleep")]
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/") and not word.endswith(":")]
    files = {f"bin/{path.name}": path for path in programs} | {
        name.removeprefix("/"): Path(name) for name in libraries
    }
    return {name: path.read_bytes() for name, path in files.items()}


@pytest.fixture
def daemon(docker_engine: DockerEngine) -> Iterator[Daemon]:  # noqa: ARG001 - whose base it uses
    """An engine of our own, of which nothing is left at the end."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("only root may start a Docker engine, where it is installed")
    daemon = Daemon()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.write("a")
    return project


def wait_for_a_step(daemon: Daemon, child: subprocess.Popen[str], left: set[str]) -> None:
    """Until a container is there that was not left by an earlier run."""
    deadline = time.monotonic() + 600
    while not set(daemon.running()) - left:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.0)


@pytest.mark.everything
def test_a_daemon_that_dies_or_stops_in_mid_build_has_a_line(daemon: Daemon, project: Project) -> None:
    daemon.bring(image_tag(find_target("riscv64")), {**shell(), "usr/bin/timeout": STEP})
    words = project.words("build", "docker")
    env = {"DOCKER_HOST": daemon.host, "KERNFIT_LIMITS": "docker=5,step=10"}
    child = project.start(words, env)
    wait_for_a_step(daemon, child, set())
    daemon.send(signal.SIGKILL)
    told((child.wait(120), project.said()), 7, "stopped answering", "--engine local")
    project.assert_clean()

    daemon.start()
    left = set(daemon.running())
    child = project.start(words, env)
    wait_for_a_step(daemon, child, left)
    assert not set(daemon.running()) & left, "the next run removes what a dead one left"
    daemon.send(signal.SIGSTOP)
    try:
        told((child.wait(120), project.said()), 7, "no answer", "KERNFIT_LIMITS=docker=SECONDS")
    finally:
        daemon.send(signal.SIGCONT)
    project.assert_clean()

    env["KERNFIT_LIMITS"] = "step=10"
    told(project.run(words, env), 7, "ran over its time limit")
    project.assert_clean()
    assert not daemon.running()
    daemon.bring(image_tag(find_target("riscv64")), {"usr/bin/other": STEP})
    told(project.run(words, env), 7, "invoke images --anew")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """A socket that takes connections, and never answers."""
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(16)
        yield f"unix://{path}"


@pytest.mark.everything
def test_a_daemon_that_never_answers_has_a_line(project: Project, silent: str) -> None:
    env = {"DOCKER_HOST": silent, "KERNFIT_LIMITS": "docker=2"}
    told(
        project.run(project.words("build", "docker"), env), 7, "no Docker engine answers", "--engine local"
    )
    status, said = project.run(project.words("build", "auto"), env)
    assert status == 0, said
    assert "engine: local (no Docker engine answers" in said


@pytest.mark.parametrize("slow", [False, True], ids=["unreachable", "silent"])
def test_a_registry_that_does_not_answer_is_given_up(
    docker_engine: DockerEngine,  # noqa: ARG001 - its client pulls
    monkeypatch: pytest.MonkeyPatch,
    *,
    slow: bool,
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if slow:
            listening.listen(16)
        name = f"127.0.0.1:{listening.getsockname()[1]}/debian@sha256:{'0' * 64}"
        pins = msgspec.structs.replace(base.image_pins(), base=name)
        monkeypatch.setattr(base, "image_pins", lambda: pins)
        monkeypatch.setenv("KERNFIT_LIMITS", "pull=3")
        client = docker.from_env()
        reason = base._pull(client)
        client.close()
    assert ("KERNFIT_LIMITS=pull=SECONDS" if slow else "Docker, in pulling: 500") in reason
