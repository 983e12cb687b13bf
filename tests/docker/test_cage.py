"""A container is a cage, and bubblewrap makes one: steps that try to leave it, from inside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import docker
from kernels.errors import EngineError, KernfitError, ResourceError
from tests.conftest import ROOT
from tests.faults import need, processes
from toolchains.engines import Engine
from toolchains.engines import cage as walls
from toolchains.engines.bubblewrap import BubblewrapEngine
from toolchains.engines.docker_engine import LABEL, SOURCES, WORK
from toolchains.target import find_target

TARGET = find_target("riscv64")
MOMENT = 5.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Cage:
    """An engine, and what names its steps' code and what they leave."""

    engine: Engine
    sources: str
    left_over: Callable[[], Sequence[object]]

    def leaves_nothing(self) -> bool:
        """Whether all of steps is gone, within a moment: the kernel ends the last of a namespace."""
        end = time.monotonic() + MOMENT
        while self.left_over() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.left_over()

    def attempt(self, folder: Path, script: str, *, timeout: float = 60) -> str:
        """Run a Python script as a step; what it left in `said`, in the job's folder.

        A step is a module with a file, and cProfile is one that runs scripts.
        """
        folder.chmod(0o777)
        work = WORK if self.sources == SOURCES else str(folder)
        script = script.replace(WORK, work).replace(SOURCES, self.sources)
        (folder / "attempt.py").write_text(script, encoding="utf-8")
        self.engine.run("cProfile", folder / "attempt.py", TARGET, timeout=timeout)
        return (folder / "said").read_text(encoding="utf-8")


@pytest.fixture(params=["docker", "bubblewrap"])
def cage(request: pytest.FixtureRequest, tmp_path: Path) -> Cage:
    """The engine with the image that the steps run in, or with none."""
    if request.param == "bubblewrap":
        need(request.param)
        return Cage(
            engine=BubblewrapEngine(), sources=str(ROOT), left_over=lambda: processes(str(tmp_path))
        )
    engine = request.getfixturevalue("docker_engine")
    engine.prepare(TARGET, print)
    return Cage(engine=engine, sources=SOURCES, left_over=containers)


def containers() -> list[str]:
    """Of this process."""
    client = docker.from_env()
    owned = {"label": f"{LABEL}={os.getpid()}"}
    names = [each.name for each in client.containers.list(all=True, filters=owned)]
    client.close()
    return names


REACH = """
import socket
said = []
for family, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80))):
    try:
        socket.socket(family).connect(address)
        said.append("connected")
    except OSError as error:
        said.append(str(error.errno))
with open("/proc/net/route") as routes:
    said.append(str(len(routes.readlines()) - 1))
said += [name for _, name in socket.if_nameindex() if name != "lo"]
open("/work/said", "w").write(" ".join(said))
"""


def test_no_network_is_reached(cage: Cage, tmp_path: Path) -> None:
    first, second, routes = cage.attempt(tmp_path, REACH).split()
    assert first == "101", "the network is unreachable"
    assert second in ("97", "99", "101"), "no such family, address or network"
    assert routes == "0"


WRITE = """
import os
written = []
for path in ("/x", "/etc/x", "/usr/x", "/opt/x", "/var/x", "/kernfit/kernels/x", "/kernfit/toolchains/x",
             "/kernfit/x", "/proc/sysrq-trigger", "/sys/x", "/dev/mem", "/dev/x"):
    try:
        with open(path, "w") as file:
            file.write("x")
        written.append(path)
    except OSError:
        pass
try:
    open("/work/../x", "w").write("x")
except OSError:
    pass
for made, names in (("/work/link", "/etc/passwd"), ("/work/out", "/")):
    os.symlink(names, made)
try:
    open("/work/link", "a").write("x")
    written.append("/work/link")
except OSError:
    pass
open("/work/said", "w").write(" ".join(written))
"""


def test_only_the_job_folder_can_be_written(cage: Cage, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    assert cage.attempt(folder, WRITE) == ""
    assert list(tmp_path.iterdir()) == [folder], "beside it a step writes in a `/tmp` of its own at most"


RAISE = """
import ctypes, os, pathlib, subprocess
def tried(what, *words):
    try:
        what(*words)
        return True
    except OSError:
        return False
def unshare(flags):
    if ctypes.CDLL(None).unshare(flags):
        raise OSError
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
gained = [name for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb") if int(status[name], 16)]
if os.getuid() == 0 or os.getgid() == 0 or 0 in os.getgroups():
    gained.append("root")
if status["NoNewPrivs"].strip() != "1":
    gained.append("new privileges")
attempts = {
    "setuid": (os.setuid, 0),
    "setgid": (os.setgid, 0),
    "setgroups": (os.setgroups, [0]),
    "chown": (os.chown, "/work/attempt.py", 0, 0),
    "device": (os.mknod, "/work/device", 0o60600, os.makedev(7, 0)),
    "chroot": (os.chroot, "/work"),
    "mounts": (unshare, 0x20000),
    "nice": (os.setpriority, os.PRIO_PROCESS, 0, -5),
}
gained += [name for name, words in attempts.items() if tried(*words)]
for program in ("/usr/bin/mount", "/usr/bin/su", "/usr/bin/newgrp", "/usr/bin/passwd"):
    if os.path.exists(program):
        words = [program, "-c", "id -u"] if program.endswith("su") else [program, "/dev/null", "/mnt"]
        child = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        if child.returncode == 0:
            gained.append(program)
open("/work/said", "w").write(" ".join(gained))
"""


def test_no_right_is_gained(cage: Cage, tmp_path: Path) -> None:
    assert cage.attempt(tmp_path, RAISE) == ""


FORK = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        count += 1
except OSError as error:
    open("/work/said", "w").write(f"{error.errno} {count}")
"""


def test_forking_without_end_ends_with_the_step(cage: Cage, tmp_path: Path) -> None:
    started = time.monotonic()
    error, count = cage.attempt(tmp_path, FORK).split()
    assert error == "11", "resource temporarily unavailable"
    assert walls.PROCESSES // 2 < int(count) < walls.PROCESSES
    assert time.monotonic() - started < 60, "a step that is over takes its children with it"
    assert cage.leaves_nothing()


OPEN = """
kept = []
try:
    while True:
        kept.append(open("/dev/null"))
except OSError as error:
    said = f"{error.errno} {len(kept)}"
    kept.clear()
    open("/work/said", "w").write(said)
"""


def test_files_are_not_opened_without_end(cage: Cage, tmp_path: Path) -> None:
    error, count = cage.attempt(tmp_path, OPEN).split()
    assert error == "24", "too many open files"
    assert int(count) < walls.FILES


def test_memory_is_not_taken_without_end(
    cage: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walls, "MEMORY", 128 << 20)
    script = "kept = []\nwhile True:\n    kept.append(b'x' * (1 << 24))\n"
    with pytest.raises(ResourceError, match="out of memory"):
        cage.attempt(tmp_path, script)
    assert cage.leaves_nothing()


def test_time_is_not_taken_without_end(cage: Cage, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EngineError, match="over its time limit"):
        cage.attempt(tmp_path, "import time\ntime.sleep(600)\n", timeout=3)
    assert time.monotonic() - started < 30
    assert cage.leaves_nothing()


def test_the_environment_is_the_list_and_no_more(
    cage: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    script = "import os\nopen('/work/said', 'w').write(' '.join(os.environ))\n"
    names = set(cage.attempt(tmp_path, script).split())
    assert names - {"PATH", "HOSTNAME", "LC_CTYPE", "PWD"} == {*walls.ENVIRONMENT, "PYTHONPATH"}


def test_a_step_that_fails_says_so(cage: Cage, tmp_path: Path) -> None:
    with pytest.raises(KernfitError, match="failed with status 1"):
        cage.attempt(tmp_path, "raise ValueError\n")
