"""A container is a cage: steps that try to leave it, from inside."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import docker
from kernels.errors import EngineError, KernfitError, ResourceError
from toolchains.engines import docker_engine as module
from toolchains.engines.docker_engine import ENVIRONMENT, FILES, LABEL, PROCESSES, DockerEngine
from toolchains.target import find_target

TARGET = find_target("riscv64")


@pytest.fixture
def cage(docker_engine: DockerEngine) -> DockerEngine:
    """The engine with the image that the steps run in."""
    docker_engine.prepare(TARGET, print)
    return docker_engine


def attempt(cage: DockerEngine, folder: Path, script: str, *, timeout: float = 60) -> str:
    """Run a Python script as a step; what it left in `said`, in the job's folder.

    A step is a module with a file, and cProfile is one that runs scripts.
    """
    folder.chmod(0o777)
    (folder / "attempt.py").write_text(script, encoding="utf-8")
    cage.run("cProfile", folder / "attempt.py", TARGET, timeout=timeout)
    return (folder / "said").read_text(encoding="utf-8")


def left_over() -> list[str]:
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


def test_no_network_is_reached(cage: DockerEngine, tmp_path: Path) -> None:
    first, second, routes = attempt(cage, tmp_path, REACH).split()
    assert first == "101", "the network is unreachable"
    assert second in ("97", "99", "101"), "no such family, address or network"
    assert routes == "0"


WRITE = """
import os
written = []
for path in ("/x", "/etc/x", "/usr/x", "/opt/x", "/var/x", "/kernfit/kernels/x", "/kernfit/toolchains/x",
             "/kernfit/x", "/proc/sysrq-trigger", "/sys/x", "/dev/mem", "/dev/x", "/work/../x"):
    try:
        with open(path, "w") as file:
            file.write("x")
        written.append(path)
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


def test_only_the_job_folder_can_be_written(cage: DockerEngine, tmp_path: Path) -> None:
    assert attempt(cage, tmp_path, WRITE) == ""


RAISE = """
import os, pathlib, subprocess
def tried(what, *words):
    try:
        what(*words)
        return True
    except OSError:
        return False
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
    "mounts": (os.unshare, os.CLONE_NEWNS),
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


def test_no_right_is_gained(cage: DockerEngine, tmp_path: Path) -> None:
    assert attempt(cage, tmp_path, RAISE) == ""


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


def test_forking_without_end_ends_with_the_step(cage: DockerEngine, tmp_path: Path) -> None:
    started = time.monotonic()
    error, count = attempt(cage, tmp_path, FORK).split()
    assert error == "11", "resource temporarily unavailable"
    assert PROCESSES // 2 < int(count) < PROCESSES
    assert time.monotonic() - started < 60, "a step that is over takes its children with it"
    assert left_over() == []


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


def test_files_are_not_opened_without_end(cage: DockerEngine, tmp_path: Path) -> None:
    error, count = attempt(cage, tmp_path, OPEN).split()
    assert error == "24", "too many open files"
    assert int(count) < FILES


def test_memory_is_not_taken_without_end(
    cage: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY", "128m")
    script = "kept = []\nwhile True:\n    kept.append(b'x' * (1 << 24))\n"
    with pytest.raises(ResourceError, match="out of memory"):
        attempt(cage, tmp_path, script)
    assert left_over() == []


def test_time_is_not_taken_without_end(cage: DockerEngine, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EngineError, match="over its time limit"):
        attempt(cage, tmp_path, "import time\ntime.sleep(600)\n", timeout=3)
    assert time.monotonic() - started < 30
    assert left_over() == []


def test_the_environment_is_the_list_and_no_more(
    cage: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    script = "import os\nopen('/work/said', 'w').write(' '.join(os.environ))\n"
    names = set(attempt(cage, tmp_path, script).split())
    assert names - {"PATH", "HOSTNAME", "LC_CTYPE"} == set(ENVIRONMENT)


def test_a_step_that_fails_says_so(cage: DockerEngine, tmp_path: Path) -> None:
    with pytest.raises(KernfitError, match="failed with status 1"):
        attempt(cage, tmp_path, "raise ValueError\n")
