"""`invoke build` as a person types it: statuses, the cache, what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from kernels.errors import EngineError
from tests.clones import copy_of_the_project
from tests.conftest import ROOT
from tests.unit.test_listing import HEAD, conv, gemm, write
from toolchains.engines.bubblewrap import is_here
from toolchains.engines.choose import choose_engine

BUILD = [sys.executable, "-m", "invoke", "build", "--engine", "local"]


def invoke(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a task in the project's folder, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def left_over(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def listing(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A listing with a name of its own, so that tests do not meet in the build folder."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**9}"
    return write(tmp_path, gemm() + conv("filters = 4, kernel = [3, 3]"), HEAD.replace('"t"', f'"{name}"'))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["build"], 2, "say which target"),
        (["build", "--arch", "riscv46"], 2, "did you mean 'riscv64'?"),
        (["build", "--arch", "riscv64", "--model", "resnet5"], 2, "did you mean 'resnet50'?"),
        (["build", "--arch", "riscv64", "--engine", "dokcer"], 2, "did you mean 'docker'?"),
        (["build", "--arch", "riscv64", "--engine", "local", "--jobs", "-1"], 2, "positive number"),
        (["build", "--arch", "riscv64", "--engine", "local", "--jobs", "many"], 2, "positive number"),
        (["build", "--arch", "riscv64", "--engine", "bubblewarp"], 2, "did you mean 'bubblewrap'?"),
        (["bench", "--seconds", "long"], 2, "give seconds"),
        (["check", "--arch", "armv7", "--engine", "local", "--model", "LISTING"], 3, "has not been built"),
        (["build", "--arch", "armv7", "--engine", "docker", "--model", "LISTING"], 7, "use --engine local"),
        (["build", "--arch", "riscv64", "--check", "some"], 2, "say all or sample"),
        (["test", "--only", "units"], 2, "did you mean 'unit'?"),
    ],
)
def test_wrong_words_and_bad_input_have_a_line_and_a_status(
    words: list[str], status: int, message: str, listing: Path
) -> None:
    words = [str(listing) if word == "LISTING" else word for word in words]
    done = invoke(*words, DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1


def test_a_build_is_checked_archived_and_cached(listing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["build", "--arch", "arm64", "--engine", "local", "--model", str(listing), "--out", str(out)]
    first = invoke(*words)
    assert first.returncode == 0, first.stderr
    assert "4 of 4 passed" in first.stdout
    (archive,) = out.glob("*.tar.gz")
    library = archive.name.split("-")[0]
    with tarfile.open(archive) as opened:
        names = {Path(name).name for name in opened.getnames()}
    assert names == {
        f"lib{library}.a",
        f"lib{library}.so",
        f"{library}.h",
        f"{library}.pc",
        f"{library}-config.cmake",
        "example.c",
        "manifest.json",
    }
    (report,) = out.glob("*.report.json")
    assert {row["status"] for row in json.loads(report.read_text())["rows"]} == {"pass"}
    again = invoke(*words)
    assert again.returncode == 0
    assert "cached" in again.stdout
    assert [line for line in first.stdout.splitlines() if str(archive) in line] == [
        line for line in again.stdout.splitlines() if str(archive) in line
    ]
    archive.write_bytes(archive.read_bytes() + b"damage")
    mended = invoke(*words)
    assert mended.returncode == 0
    assert " cached" not in mended.stdout
    checked = invoke("check", "--arch", "arm64", "--engine", "local", "--model", str(listing))
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(" pass ") == 4


def test_a_bad_listing_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, gemm(k="-1"))
    out = tmp_path / "out"
    done = invoke("build", "--arch", "all", "--engine", "local", "--model", str(path), "--out", str(out))
    assert done.returncode == 3
    assert f"{path}:9: k = -1 must be positive" in done.stderr
    assert left_over(out) == []


def test_skipped_checks_are_said_and_can_be_forbidden(listing: Path, tmp_path: Path) -> None:
    words = ["build", "--arch", "s390x", "--engine", "local", "--model", str(listing), "--out"]
    bare = {"PATH": str(Path(sys.executable).parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = invoke(*words, str(tmp_path / "one"), **bare)
    assert done.returncode == 0, done.stderr
    assert "0 of 2 passed, 2 skipped" in done.stdout
    assert "`invoke setup` brings it" in done.stdout
    strict = invoke(*words, str(tmp_path / "two"), "--require-checks", **bare)
    assert strict.returncode == 6
    assert "2 check(s) were skipped" in strict.stderr


def test_the_local_engine_says_what_it_does_not_protect_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "; --engine bubblewrap takes them away" if is_here() else ""
    assert choose_engine("local")[1].endswith(f"all your rights{other}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_engine("local")[1].endswith("all your rights")
    with pytest.raises(EngineError, match="bwrap is missing; `invoke setup` brings it"):
        choose_engine("bubblewrap")


def test_modules_are_compiled_once_for_all_tasks(tmp_path: Path) -> None:
    """Invoke forbids Python to keep what it compiled, which would take each task a quarter of a second."""
    copy_of_the_project(tmp_path)
    kept = []
    for words in ([], ["-B"]):
        command = [sys.executable, *words, "-m", "invoke", "targets"]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
        kept.append(any((tmp_path / "toolchains").rglob("*.pyc")))
        for path in tmp_path.rglob("*.pyc"):
            path.unlink()
    assert kept == [True, False], "as Python was told"
