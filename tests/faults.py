"""A project of its own to break: a copy of the sources, and what must hold of it after every fault."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

import docker
from tests.clones import commit, copy_of_the_project
from tests.unit.test_listing import HEAD, gemm
from toolchains.archive import file_sha256
from toolchains.engines.bubblewrap import is_here
from toolchains.engines.talking import LABEL
from toolchains.events import Event
from toolchains.making import SUFFIXES
from toolchains.pipeline import STAMP, Stamp, _damaged
from toolchains.release import SUMS
from toolchains.report import Report

BEGINNING = "Fatal Python error: init_"
"""What Python says if a signal comes in its first hundredth of a second."""
NO_NAMESPACES = "no user namespaces here"
SIZES = {"a": ("3", "5"), "b": ("4", "9")}
"""Rows and columns of two products, which two versions of the small listing add to a third."""


def read_log(path: Path) -> list[Event]:
    """The events of a log; of a killed run's the last line may be missing its end, and is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Event) for line in lines]


class Project:
    """A copy of the sources in which `build/`, `dist/` and the listing are one test's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        copy_of_the_project(folder)
        self.folder, self.build, self.out = folder, folder / "build", folder / "dist"
        self.listing = folder / "tiny.toml"

    def write(self, version: str, *, slow: bool = False) -> None:
        """Write the listing: a product that both versions have, one of this, and one that takes minutes."""
        m, n = SIZES[version]
        body = gemm(name='"c"', m="2", n="6", k="4") + gemm(name=f'"{version}"', m=m, n=n, k="6")
        if slow:
            body += gemm(name='"slow"', m="900", n="900", k="900")
        self.listing.write_text(HEAD.replace('"t"', '"tiny"') + body, encoding="utf-8")

    def words(self, task: str, engine: str, *more: str, model: Path | None = None) -> list[str]:
        """A command line."""
        words = ["--arch", "riscv64", "--engine", engine, "--model", str(model or self.listing)]
        return [sys.executable, "-m", "invoke", task, *words, *more]

    def start(
        self, words: list[str], env: Mapping[str, str] | None = None, output: str = ""
    ) -> subprocess.Popen[str]:
        """Start a task as a shell would in the background, its output in a file of a name of its own."""
        with (self.folder / f"output{output}").open("w", encoding="utf-8") as stream:
            return subprocess.Popen(
                words,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **(env or {})},
                process_group=0,
            )

    def run(self, words: list[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a task to its end; its status and what it printed. What never ends fails the test."""
        child = self.start(words, env)
        try:
            status = child.wait(600)
        finally:
            child.kill()
        return status, self.said()

    def said(self, output: str = "") -> str:
        """What the last task with that output printed."""
        return (self.folder / f"output{output}").read_text(encoding="utf-8")

    def archive(self) -> str:
        """The hash of the archive in `dist/`."""
        (path,) = self.out.glob("*.tar.gz")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def events(self) -> list[Event]:
        """Those of the newest log."""
        return read_log(
            max((self.build / "logs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        )

    def events_of(self, step: str, log: Path | None = None) -> list[Event]:
        """Ends of a whole step, in the newest log or the one given."""
        events = read_log(log) if log else self.events()
        return [each for each in events if each.step == step and each.kind == "end" and not each.kernel]

    def cached(self, step: str) -> int:
        """How many kernels the last task took from an earlier one, in that step."""
        return sum(
            bool(each.kernel) and each.step == step and each.outcome == "cached" for each in self.events()
        )

    def generated(self) -> int:
        """Functions whose objects are all in the cache."""
        return len(list(_entries(self.build / "cache" / "objects"))) // len(SUFFIXES)

    def assert_whole(self) -> None:
        """Everything that has its name is whole: cache entries, build folders, archives' reports."""
        for path in _entries(self.build / "cache"):
            data = path.read_bytes()
            assert hashlib.sha256(data[32:]).digest() == data[:32], path
        for stamp in self.build.glob(f"*/*/{STAMP}"):
            assert not _damaged(stamp.parent, msgspec.json.decode(stamp.read_bytes(), type=Stamp))
        for report in self.out.glob("*.report.json"):
            assert not msgspec.json.decode(report.read_bytes(), type=Report).failed()

    def assert_clean(self) -> None:
        """Nothing unfinished is left: no process, no folder, no file beside its place."""
        deadline = time.monotonic() + 30
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.processes()
        assert not list((self.build / "tmp").glob("*")) + list((self.build / "tmp").glob(".*"))
        for folder in (self.out, self.build):
            assert not [path for path in folder.rglob(".*") if path.is_file()]

    def processes(self, word: str = "") -> list[int]:
        """Processes whose folder or command line is in this project, and which a word names."""
        return processes(str(self.folder), word)


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def in_local_engines(
    name: str, *, local: tuple[int, int], bubblewrap: tuple[int, int]
) -> pytest.MarkDecorator:
    """Run a test in both, with a number of that name: the first always, the second with `--everything`."""
    counts = {"local": local, "bubblewrap": bubblewrap}
    rows = [pytest.param(engine, few) for engine, (few, _) in counts.items()]
    rows += [
        pytest.param(engine, many, marks=pytest.mark.everything) for engine, (_, many) in counts.items()
    ]
    return pytest.mark.parametrize(("engine", name), rows)


def need(engine: str) -> None:
    """Skip where it is bubblewrap, and that is not installed, or the system allows no namespaces."""
    if engine == "bubblewrap" and not is_here():
        pytest.skip("bubblewrap is not here: `invoke setup` brings it where it may install packages")
    if engine == "bubblewrap" and not may_have_namespaces(*PROCESSES):
        pytest.skip(NO_NAMESPACES)


PROCESSES = ("--pid", "--fork", "--mount-proc")
"""Of a namespace, a view of its own processes, which containers may not have."""


def may_have_namespaces(*more: str) -> bool:
    """Whether this system lets a user have a user namespace, and `more` in it."""
    command = ["unshare", "--user", "--map-root-user", "--uts", *more, "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def processes(*words: str) -> list[int]:
    """Of what runs on this machine, that whose folder and command line have all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        command = where = ""
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            where = str((path / "cwd").readlink())
        if command and all(word in f"{where} {command}" for word in words):
            found.append(int(path.name))
    return found


def told(ended: tuple[int, str], status: int, *words: str) -> None:
    """A task ended with that status and one line of error, or a summary, that has these words."""
    found, said = ended
    assert found == status, said
    assert "Traceback" not in said, said
    assert sum(line.startswith("error:") for line in said.splitlines()) == 1, said
    for each in words:
        assert each in said


def containers(folder: Path) -> list[str]:
    """Names of containers in which steps of a project's copy run, or ran."""
    client = docker.from_env()
    try:
        found = client.api.containers(all=True, filters={"label": LABEL})
    finally:
        client.close()
    return [
        str(each["Names"])
        for each in found
        if any(str(mount.get("Source", "")).startswith(str(folder)) for mount in each["Mounts"])
    ]


def kill(child: subprocess.Popen[str], after: float) -> bool:
    """SIGKILL after so many seconds; False if the child had ended by itself."""
    try:
        child.wait(after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return True
    return False


class Undisturbed:
    """A project in peace: the hashes of both versions of the listing, and how long the first takes."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.sha256: dict[str, str] = {}
        for version in SIZES:
            self.project.write(version)
            started = time.monotonic()
            status, said = self.project.run(self.project.words("build", "local"))
            assert status == 0, said
            self.seconds = time.monotonic() - started
            self.sha256[version] = self.project.archive()
        self.project.assert_clean()


class Releases:
    """A checkout of two commits, a version of the listing in each, and what a release of each is."""

    FOLDER = "mine"

    def __init__(self, folder: Path) -> None:
        self.project = project = Project(folder)
        self.out = folder / self.FOLDER
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        ignored = folder / ".git" / "info" / "exclude"
        ignored.write_text(f"/output\n/{self.FOLDER}/\n", encoding="utf-8")
        self.commits: dict[str, str] = {}
        self.sums: dict[str, str] = {}
        for version in SIZES:
            project.write(version)
            commit(folder, {})
            words = ["git", "rev-parse", "HEAD"]
            found = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout
            self.commits[version] = found.strip()
            started = time.monotonic()
            status, said = project.run(self.words)
            assert status == 0, said
            self.seconds = time.monotonic() - started
            self.sums[version] = self.found()

    @property
    def words(self) -> list[str]:
        """The command line, from within the checkout."""
        return self.project.words("release", "local", "--out", self.FOLDER, model=Path("tiny.toml"))

    def check_out(self, version: str) -> None:
        """Go to the commit of that version."""
        words = ["git", "checkout", "-q", self.commits[version]]
        subprocess.run(words, cwd=self.project.folder, check=True)

    def found(self) -> str:
        """The sums of the release that is there, all of which must be right, and nothing missing."""
        text = (self.out / SUMS).read_text(encoding="utf-8")
        for line in text.splitlines():
            sha256, name = line.split()
            assert file_sha256(self.out / name) == sha256
        assert len(list(self.out.iterdir())) == 5  # archive, report, provenance, note, sums
        return text


def killed_builds(undisturbed: Undisturbed, folder: Path, engine: str, kills: int) -> None:
    """Kill builds of either version in turn, so often in all; after each kill and end all must hold."""
    chance = np.random.default_rng(kills)
    project = Project(folder)
    good, want, done, span = "", "a", 0, undisturbed.seconds
    while done < kills:
        project.write(want)
        known = project.generated()
        child = project.start(project.words("build", engine))
        while done < kills and kill(child, chance.uniform(0.0, span)):
            done += 1
            project.assert_whole()
            if good:
                assert project.archive() in (undisturbed.sha256[good], undisturbed.sha256[want])
            known = project.generated()
            child = project.start(project.words("build", engine))
        started = time.monotonic()
        assert child.wait(600) == 0, project.said()
        span = max(span, time.monotonic() - started)
        assert project.archive() == undisturbed.sha256[want]
        project.assert_whole()
        project.assert_clean()
        (ended,) = project.events_of("build")
        assert ended.outcome == "cached" or project.cached("compile") == min(known, 2)
        good, want = want, "b" if want == "a" else "a"
        shutil.rmtree(project.build / "cache")


def interrupt(project: Project, words: list[str], number: signal.Signals, after: float) -> float | None:
    """Send a signal so many seconds after the start; seconds until the end, None if that was before."""
    child = project.start(words)
    try:
        child.wait(after)
    except subprocess.TimeoutExpired:
        child.send_signal(number)
        sent = time.monotonic()
        status = child.wait(60)
        took = time.monotonic() - sent
        said = project.said()
        if status in (128 + number, -number):
            assert "Traceback" not in said or status < 0  # as Python does before it reads a line of ours
        else:  # as Invoke does before that, or Python while it begins
            assert (status, said) == (1, "") or said.startswith(BEGINNING), f"{status}: {said}"
        return took
    return None
