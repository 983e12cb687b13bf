"""Archives and the cache: the same bytes each time, and damage is noticed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults import processes
from toolchains.archive import make_archive
from toolchains.cache import Store, digest
from toolchains.making import SUFFIXES, _fetch
from toolchains.owner import is_gone, owner
from toolchains.scratch import exchange, scratch, whole, write_whole


def members(folder: Path, names: list[str], mode: int, when: int) -> dict[str, Path]:
    """Files with content that depends on their name alone."""
    folder.mkdir()
    found = {}
    for name in names:
        path = folder / name
        path.write_text(name * 50, encoding="utf-8")
        path.chmod(mode)
        os.utime(path, (when, when))
        found[name] = path
    return found


def test_an_archive_depends_on_its_members_alone(tmp_path: Path) -> None:
    one = members(tmp_path / "one", ["b.h", "a.a"], 0o600, 1)
    two = members(tmp_path / "two", ["a.a", "b.h"], 0o755, 2_000_000_000)
    first = make_archive(tmp_path / "1.tar.gz", "p", one)
    assert first == make_archive(tmp_path / "2.tar.gz", "p", two)
    with tarfile.open(tmp_path / "1.tar.gz") as archive:
        assert archive.getnames() == ["p/a.a", "p/b.h"]
        assert {(m.mode, m.uid, m.gid, m.uname, m.mtime) for m in archive} == {(0o644, 0, 0, "", 0)}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, b"new" * 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


DIE = """
import os, sys
from pathlib import Path
from toolchains.scratch import scratch, whole
with whole(Path(sys.argv[1]) / "file") as out, scratch(Path(sys.argv[1]), "work"):
    out.write(b"new")
    os.kill(os.getpid(), 9)
"""


def test_remains_of_a_killed_process_are_removed_and_of_a_live_one_not(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    died = subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    (work,) = (tmp_path / "tmp").iterdir()
    (remains,) = (each for each in tmp_path.iterdir() if each.name.startswith(".file."))
    assert (tmp_path / "file").read_bytes() == b"old"
    with whole(tmp_path / "file") as ours, scratch(tmp_path, "work") as other:
        assert not remains.exists()
        assert not work.exists()
        ours.write(b"new")
        with scratch(tmp_path, "work"):
            assert other.exists()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not list((tmp_path / "tmp").iterdir())


BUSY = """
import sys, threading, time
from pathlib import Path
from toolchains.interruption import leave
from toolchains.process import run
from toolchains.scratch import scratch
def work():
    while True:
        with scratch(Path(sys.argv[1]), "work") as folder:
            for number in range(20):
                (folder / str(number)).touch()
            run(["sleep", sys.argv[2]], timeout=0.01)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
leave(7, "")
"""


@pytest.mark.parametrize("times", [5])
def test_nothing_is_left_by_threads_that_work_on_while_a_process_leaves(tmp_path: Path, times: int) -> None:
    seconds = f"60.{os.getpid()}"
    for _ in range(times):
        left = subprocess.run([sys.executable, "-c", BUSY, str(tmp_path), seconds], cwd=ROOT, check=False)
        assert left.returncode == 7
        assert not list((tmp_path / "tmp").iterdir())
    assert processes(f"sleep {seconds}") == []


def test_only_remains_of_other_machines_are_removed_for_their_age(tmp_path: Path) -> None:
    foreign = tmp_path / "tmp" / ".work.00000000-1-1-0"
    with scratch(tmp_path, "work") as ours:
        foreign.mkdir()
        for path in (foreign, ours):
            os.utime(path, (1, 1))
        with scratch(tmp_path, "work"):
            assert ours.exists(), "a clock that jumps makes nothing old that a living process works in"
            assert not foreign.exists()


def test_a_process_is_gone_only_if_that_is_sure() -> None:
    here, process, start = owner().split("-")
    assert not is_gone(owner())
    assert is_gone(f"{here}-{process}-{int(start) + 1}"), "its number was another's, before"
    assert not is_gone(f"00000000-{process}-1"), "of another machine nothing is known"


def test_folders_are_exchanged(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["one"]
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["two"]
    exchange(tmp_path / "two", tmp_path / "new")
    assert (tmp_path / "new" / "one").exists()
    assert not (tmp_path / "two").exists()


def test_the_store_keeps_and_notices_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = digest("key")
    assert store.get(key) is None
    store.put(key, b"data")
    assert store.get(key) == b"data"
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    assert store.get(key) is None
    assert not path.exists()


@pytest.mark.parametrize("half", SUFFIXES)
def test_half_a_function_is_not_taken_from_the_store(tmp_path: Path, half: str) -> None:
    store, place = Store(tmp_path / "store"), tmp_path / "place"
    place.mkdir()
    store.put(digest("key", half), b"a part")
    assert not _fetch(store, "key", "f", place)
    assert not list(place.iterdir()), "a container's user may not write over it"
    for suffix in SUFFIXES:
        store.put(digest("key", suffix), suffix.encode())
    assert _fetch(store, "key", "f", place)
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        f"f{each}": each for each in SUFFIXES
    }
