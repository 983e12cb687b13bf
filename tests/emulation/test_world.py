"""Faults of the machine, each with the real thing: a right result, or a line, a hint and a status."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults import Project, Undisturbed, interrupt, told

BARE = {"PATH": str(Path(sys.executable).parent)}
"""A search path on which no emulator is."""


@pytest.fixture
def project(undisturbed: Undisturbed, tmp_path: Path) -> Project:
    """A project in which the second version is built, and the first is what the listing says now."""
    project = Project(tmp_path / "project")
    for name in ("build", "dist"):
        shutil.copytree(undisturbed.project.folder / name, project.folder / name)
    project.write("a")
    return project


def in_a_mount(command: Sequence[str], mount: str) -> list[str]:
    """A command, in a name space of mounts of its own, where `mount` was done first."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "sh", "-ec", f'{mount}; exec "$@"', "sh", *command]


def may_mount() -> bool:
    """Whether this system lets whoever runs the tests have mounts of their own."""
    probe = in_a_mount(["true"], "mount -t tmpfs none /mnt")
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="no name spaces of mounts here")


@needs_mounts
@pytest.mark.parametrize("place", ["dist", "build"])
def test_a_full_disk_has_a_line_and_harms_nothing(project: Project, place: str) -> None:
    good, folder = project.archive(), project.folder / place
    folder.rename(project.folder / "kept")
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {shlex.quote(str(folder))}"
    if place == "dist":  # full but for a page, as after somebody else's copy
        mount += f"; head -c 60K /dev/zero > {shlex.quote(str(folder / 'other'))}"
    told(project.run(in_a_mount(project.words("build", "local"), mount)), 8, "No space left on device")
    folder.rmdir()
    (project.folder / "kept").rename(folder)
    assert project.archive() == good
    project.assert_whole()


@needs_mounts
def test_a_read_only_disk_has_a_line(project: Project) -> None:
    out = shlex.quote(str(project.out))
    mount = f"mount --bind {out} {out}; mount -o remount,bind,ro {out}"
    words = in_a_mount(project.words("build", "local"), mount)
    told(project.run(words), 8, "Read-only file system", "name a folder that can be written")
    project.assert_clean()


BLKIO = Path("/sys/fs/cgroup/blkio")
THROTTLES = [BLKIO / f"blkio.throttle.{way}_iops_device" for way in ("read", "write")]
"""Linux, admin-guide/cgroup-v1/blkio-controller: a line `MAJOR:MINOR REQUESTS` limits a device's requests
in a second, and 0 lifts that."""
LOOPS = Path("/dev/loop-control")
REQUESTS = 400


class Disk:
    """A file system of its own that keeps nothing back, on a device of so many requests a second."""

    def __init__(self, folder: Path, device: str) -> None:
        """Where it is mounted, and the device's numbers."""
        self.folder, self._device = folder, device

    def throttle(self, requests: int) -> None:
        """Limit reads and writes, each."""
        for path in THROTTLES:
            path.write_text(f"{self._device} {requests}", encoding="utf-8")

    def writes(self) -> int:
        """Requests so far to write."""
        served = (BLKIO / "blkio.throttle.io_serviced_recursive").read_text(encoding="utf-8")
        words = f"{self._device} Write "
        return sum(int(line.removeprefix(words)) for line in served.splitlines() if line.startswith(words))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as stream:
        stream.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    found = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, stdout=subprocess.PIPE, text=True
    )
    device = found.stdout.strip()
    numbers = (Path("/sys/block") / Path(device).name / "dev").read_text(encoding="utf-8").strip()
    disk = Disk(folder, numbers)
    try:
        subprocess.run(["mount", "-o", "sync,dirsync", device, str(folder)], check=True)
        yield disk
    finally:
        disk.throttle(0)
        subprocess.run(["umount", str(folder)], check=False)
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(Path.exists, (*THROTTLES, LOOPS))),
    reason="it takes root, loop devices, and blkio of the first version of control groups",
)
def test_a_slow_disk_slows_and_harms_nothing(undisturbed: Undisturbed, disk: Disk) -> None:
    project = Project(disk.folder / "project")
    project.write("a")
    disk.throttle(REQUESTS)
    writes, started = disk.writes(), time.monotonic()
    status, said = project.run(project.words("build", "local"))
    assert time.monotonic() - started >= 0.9 * (disk.writes() - writes) / REQUESTS, "it is not slow"
    assert disk.writes() - writes > REQUESTS
    assert status == 0, said
    assert project.archive() == undisturbed.sha256["a"]
    project.write("b", slow=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert interrupt(project, project.words("build", "local"), number, 4.0) is not None
        project.assert_whole()
        project.assert_clean()
    assert project.archive() == undisturbed.sha256["a"]


@pytest.mark.everything
def test_little_memory_has_a_line(project: Project) -> None:
    shutil.rmtree(project.build / "cache")
    words = ["prlimit", f"--as={400 << 20}", *project.words("build", "local")]
    told(project.run(words), 8, "memory", "--jobs 1")
    project.assert_clean()


def test_a_step_that_the_kernel_kills_has_a_line(project: Project) -> None:
    shutil.rmtree(project.build / "cache")
    child = project.start(project.words("build", "local"))
    victim = 0
    while not victim and child.poll() is None:
        time.sleep(0.05)
        victim = next(iter(project.processes("toolchains.step")), 0)
    assert victim, project.said()
    os.kill(victim, signal.SIGKILL)
    told((child.wait(600), project.said()), 8, "ran out of memory", "--jobs 1")
    project.assert_clean()


SAYS = 'case "$*" in *--version*) echo "qemu-riscv64 version {version}"; exit;; *--help*) exit;; esac\n'
EMULATORS = {
    "missing": (None, 6, "qemu-riscv64 is not installed; `invoke setup` brings it"),
    "old": (SAYS.format(version="5.2.0"), 6, "qemu-riscv64 5.2.0 is older than"),
    "mute": ("exit 1\n", 6, "did not say its version"),
    "hanging at once": ("exec sleep 600\n", 6, "KERNFIT_LIMITS=probe=SECONDS"),
    "crashing at once": (SAYS.format(version="9.0.0") + "kill -SEGV $$\n", 6, "SIGSEGV"),
    "crashing": (SAYS.format(version="9.0.0") + '[ -z "$5" ] || kill -SEGV $$\n', 5, "crash: "),
    "hanging": (SAYS.format(version="9.0.0") + '[ -z "$5" ] || exec sleep 600\n', 5, "timeout: "),
}
"""Emulators as they may be: a script, the status of a build that requires checks, and what it says."""


RUNNING = [pytest.param(name, marks=pytest.mark.everything) for name in ("crashing", "hanging")]


@pytest.mark.parametrize(
    "name", [*(name for name in EMULATORS if name not in ("crashing", "hanging")), *RUNNING]
)
def test_an_emulator_that_fails_is_named(project: Project, tmp_path: Path, name: str) -> None:
    script, status, words = EMULATORS[name]
    folder = tmp_path / "bin"
    folder.mkdir()
    if script is not None:
        (folder / "qemu-riscv64").write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
        (folder / "qemu-riscv64").chmod(0o755)
    env = {
        "PATH": f"{folder}:{BARE['PATH']}:/bin",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "KERNFIT_LIMITS": "probe=2,check=2",
    }
    if shutil.which("qemu-riscv64", path="/bin"):
        env["PATH"] = f"{folder}:{BARE['PATH']}"
        for tool in ("sh", "sleep"):
            (folder / tool).symlink_to(f"/bin/{tool}")
    told(project.run(project.words("build", "local", "--require-checks"), env), status, words)
    project.assert_clean()


def damage(path: Path) -> None:
    """Turn a bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.everything
def test_damaged_entries_of_the_cache_are_made_again(undisturbed: Undisturbed, project: Project) -> None:
    entries = [path for path in (project.build / "cache").rglob("*") if path.is_file()]
    for path in entries:
        damage(path)
    status, said = project.run(project.words("build", "local"))
    assert status == 0, said
    assert project.archive() == undisturbed.sha256["a"]
    assert not project.cached("compile") + project.cached("check")


def test_a_damaged_build_is_not_checked_but_made_again(undisturbed: Undisturbed, project: Project) -> None:
    project.write("b")
    damage(project.build / "riscv64" / "tiny" / "runner")
    told(project.run(project.words("check", "local")), 3, "runner is not as it was built")
    status, said = project.run(project.words("build", "local"))
    assert status == 0, said
    assert project.archive() == undisturbed.sha256["b"]
    assert project.cached("compile") == 2
    project.assert_whole()


def test_a_log_that_cannot_be_written_is_said_and_fails_nothing(
    undisturbed: Undisturbed, project: Project
) -> None:
    shutil.rmtree(project.build / "logs")
    (project.build / "logs").write_text("no folder")
    status, said = project.run(project.words("build", "local"))
    assert status == 0, said
    assert "the log is not whole: " in said
    assert project.archive() == undisturbed.sha256["a"]


@pytest.mark.everything
def test_a_clock_that_jumps_back_changes_nothing(undisturbed: Undisturbed, project: Project) -> None:
    shutil.rmtree(project.build / "logs")
    later = time.time() + 366 * 86400
    for path in [*project.folder.rglob("*")]:
        if path.is_file():
            os.utime(path, (later, later))
    for version in ("b", "a"):
        project.write(version)
        status, said = project.run(project.words("build", "local"))
        assert status == 0, said
        assert project.archive() == undisturbed.sha256[version]
        assert project.events_of("build")[-1].outcome == ("cached" if version == "b" else "done")
    project.assert_clean()


def test_the_same_build_twice_at_once_is_made_once(undisturbed: Undisturbed, project: Project) -> None:
    shutil.rmtree(project.build)
    first, second = (project.start(project.words("build", "local"), output=name) for name in "12")
    assert (first.wait(600), second.wait(600)) == (0, 0), project.said("1") + project.said("2")
    assert project.archive() == undisturbed.sha256["a"]
    logs = sorted((project.build / "logs").glob("*.jsonl"))
    assert sorted(project.events_of("build", log)[-1].outcome or "" for log in logs) == ["cached", "done"]
    project.assert_whole()
    project.assert_clean()


@pytest.mark.everything
@pytest.mark.parametrize("count", [2, 20])
def test_many_builds_at_once_are_as_alone(project: Project, count: int) -> None:
    children = []
    for number in range(count):
        path = project.folder / f"many{number}.toml"
        text = project.listing.read_text(encoding="utf-8").replace('"tiny"', f'"many{number}"')
        path.write_text(text.replace("k = 6", f"k = {7 + number}"), encoding="utf-8")
        words = project.words("build", "local", "--jobs", "1", model=path)
        children.append(project.start(words, output=str(number)))
    for number, child in enumerate(children):
        assert child.wait(3600) == 0, project.said(str(number))
    for number in range(count):
        (archive,) = project.out.glob(f"many{number}-*.tar.gz")
        assert archive.stat().st_size
    project.assert_whole()
    project.assert_clean()
    (archive,) = project.out.glob("many0-*.tar.gz")
    together = archive.read_bytes()
    shutil.rmtree(project.build)
    status, said = project.run(project.words("build", "local", model=project.folder / "many0.toml"))
    assert status == 0, said
    assert archive.read_bytes() == together


@pytest.mark.everything
def test_limits_are_understood_or_refused(project: Project) -> None:
    words = project.words("build", "local")
    told(project.run(words, {"KERNFIT_LIMITS": "stp=3"}), 2, "did you mean 'step'?")
    told(project.run(words, {"KERNFIT_LIMITS": "step=-3"}), 2, "give seconds")
    told(project.run(words, {"KERNFIT_LIMITS": "step=0.2"}), 7, "KERNFIT_LIMITS=step=SECONDS")
    project.assert_clean()
