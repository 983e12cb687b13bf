"""The workflows' shell lines that call `invoke`, run here as they are written there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from ruamel.yaml import YAML

from tests.clones import LISTING, commit_of_the_project
from tests.conftest import ROOT
from toolchains.target import all_targets

GITHUB = ROOT / ".github"
FILES = sorted(GITHUB.glob("workflows/*.yml")) + sorted(GITHUB.glob("actions/*/action.yml"))
EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")
EXPRESSIONS = {
    "inputs.arch": "riscv64,s390x",
    "inputs.model": "small.toml",
    "inputs.engine": "local",
    "inputs.out": "dist",
    "inputs.options": "--require-checks --jobs 2",
    "matrix.target": "riscv64",
    "matrix.machine.engine": "local",
    "github.event_name == 'schedule' && '--all' || ''": "--all",
}
"""What GitHub would put in the place of each expression; one that is not here fails its test."""
SHORTER = {"--model all": "--model small.toml"}
"""What would take hours, and what is run in its stead: the only words that are changed."""
LONG = ("invoke lint",)
"""What is left to the long tests, for `.ci/run` does the same."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step's script, and the environment that it adds."""

    place: str
    script: str
    env: dict[str, str]


def steps() -> Iterator[Step]:
    """Every step of a workflow or action that calls `invoke`."""
    for path in FILES:
        parsed = YAML(typ="safe").load(path)
        jobs = parsed["jobs"].items() if "jobs" in parsed else [("runs", parsed["runs"])]
        for name, job in jobs:
            for step in job.get("steps", ()):
                if "invoke " in step.get("run", ""):
                    env = {**job.get("env", {}), **step.get("env", {})}
                    yield Step(place=f"{path.relative_to(GITHUB)}:{name}", script=step["run"], env=env)


def filled(text: str) -> str:
    """The text with every expression replaced."""
    for words, others in SHORTER.items():
        text = text.replace(words, others)
    return EXPRESSION.sub(lambda found: EXPRESSIONS[found[1]], text)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in a folder of its own, with uv where CI has it."""
    uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    if not Path(uv).exists():
        pytest.skip("uv is not here: run the tests through `uv run`")
    folder = tmp_path_factory.mktemp("clone")
    commit_of_the_project(folder, {"small.toml": LISTING})
    (folder / ".uv" / "bin").mkdir(parents=True)
    (folder / ".uv" / "bin" / "uv").symlink_to(uv)
    return folder


def run(step: Step, clone: Path, workspace: Path) -> Mapping[str, str]:
    """Run a step as GitHub does, with bash; what it wrote as its outputs.

    The suite does not run itself: pytest only collects what the step asks for.
    """
    action = clone / ".github" / Path(step.place.split(":")[0]).parent
    temporary = workspace / "temp"
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PYTEST_"))}
    env |= {
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "PYTEST_ADDOPTS": "--collect-only --quiet",
        "GITHUB_ACTION_PATH": str(action),
        "GITHUB_OUTPUT": str(temporary / "output"),
        "GITHUB_STEP_SUMMARY": str(temporary / "summary.md"),
        "RUNNER_TEMP": str(temporary),
        **{name: filled(value) for name, value in step.env.items()},
    }
    finished = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled(step.script)],
        cwd=workspace if action.name != "workflows" else clone,
        env=env,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    output = temporary / "output"
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    return dict(line.split("=", 1) for line in lines)


FOUND = list(steps())


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, id=step.place, marks=[pytest.mark.everything] * step.script.endswith(LONG))
        for step in FOUND
        if ":runs" not in step.place
    ],
)
def test_a_step_runs_as_written(step: Step, clone: Path, tmp_path: Path) -> None:
    run(step, clone, tmp_path)


def test_the_action_builds_a_model_of_another_repository(clone: Path, tmp_path: Path) -> None:
    (step,) = (step for step in FOUND if step.place == "actions/build/action.yml:runs")
    (tmp_path / "small.toml").write_text(LISTING, encoding="utf-8")
    outputs = run(step, clone, tmp_path)
    assert outputs == {"folder": str(tmp_path / "dist")}
    archives = sorted(path.name for path in (tmp_path / "dist").glob("*.tar.gz"))
    assert [name.split("-")[0] for name in archives] == ["small", "small"]
    page = (tmp_path / "temp" / "summary.md").read_text(encoding="utf-8")
    assert page.startswith("| model | target |")
    assert all(f"` {name}\n" in page for name in archives)


def test_the_action_names_the_targets(clone: Path, tmp_path: Path) -> None:
    (step,) = (step for step in FOUND if step.place == "actions/targets/action.yml:runs")
    outputs = run(step, clone, tmp_path)
    assert msgspec.json.decode(outputs["names"]) == ["riscv64", "s390x"]
    assert {"riscv64", "s390x"} < set(all_targets())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_actions_are_pinned_by_commit_with_the_version_beside(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if "uses: " in line and "uses: $/" not in line:
            assert re.search(r"uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rights_are_asked_for_job_by_job(path: Path) -> None:
    parsed = YAML(typ="safe").load(path)
    if "jobs" in parsed:
        assert parsed["permissions"] == {}
        assert all("permissions" in job for job in parsed["jobs"].values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_jobs_have_a_limit_of_time_and_one_speaks_for_all(path: Path) -> None:
    parsed = YAML(typ="safe").load(path)
    jobs = parsed.get("jobs", {})
    assert all("timeout-minutes" in job for job in jobs.values() if "uses" not in job)
    called = set(parsed.get("on", {})) == {"workflow_call"}
    if jobs and not called:
        assert set(jobs["check"]["needs"]) == jobs.keys() - {"check"}
        assert parsed["concurrency"]["cancel-in-progress"] is True


def test_hooks_run_what_the_workflows_run() -> None:
    parsed = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")
    hooks = [hook["entry"] for repository in parsed["repos"] for hook in repository["hooks"]]
    assert hooks
    assert set(hooks) <= {step.script for step in FOUND}


@pytest.mark.parametrize(
    ("second", "targets", "status"),
    [
        (b"same", ("riscv64", "s390x"), 0),
        (b"other", ("riscv64", "s390x"), 1),
        (b"same", ("riscv64",), 1),
    ],
)
def test_a_release_that_two_machines_made_differently_is_refused(
    tmp_path: Path, second: bytes, targets: tuple[str, ...], status: int
) -> None:
    parsed = YAML(typ="safe").load(GITHUB / "workflows" / "release.yml")
    (script,) = (
        step["run"] for step in parsed["jobs"]["publish"]["steps"] if "Refuse" in step.get("name", "")
    )
    for engine, names, data in (("docker", ("riscv64", "s390x"), b"same"), ("local", targets, second)):
        for target in names:
            folder = tmp_path / f"release-{engine}-{target}"
            folder.mkdir()
            files = {f"a-{target}.tar.gz": data, "NOTES.md": b"# note"}
            sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
            for name, content in files.items():
                (folder / name).write_bytes(content)
            text = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
            (folder / "SHA256SUMS").write_text(text, encoding="utf-8")
    page = tmp_path / "page.md"
    ended = subprocess.run(
        ["/bin/bash", "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "GITHUB_STEP_SUMMARY": str(page)},
        check=False,
        stdout=subprocess.PIPE,
    )
    assert ended.returncode == status
    if status == 0:
        rows = page.read_text(encoding="utf-8").splitlines()[2:]
        assert [row.split()[1] for row in rows] == ["NOTES.md", "a-riscv64.tar.gz", "a-s390x.tar.gz"]
        assert len((tmp_path / "release" / "SHA256SUMS").read_text().splitlines()) == 3
