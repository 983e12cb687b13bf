"""The project's own tests and linters, as tasks run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kernels.errors import UsageError, did_you_mean
from toolchains.cache import ROOT
from toolchains.machine import processors

FOLDERS = ("unit", "emulation", "docker", "conformance", "fuzz")
MOST_AT_ONCE = 4
"""Tests run side by side; most of them build, with a job for each processor."""
SCHEMAS = {
    "vendor.github-workflows": (".github/workflows/*.yml",),
    "custom.github-workflows-require-timeout": (".github/workflows/*.yml",),
    "vendor.github-actions": (".github/actions/*/action.yml",),
    "vendor.dependabot": (".github/dependabot.yml",),
    "vendor.github-issue-forms": (".github/ISSUE_TEMPLATE/[!c]*.yml",),
    "vendor.github-issue-config": (".github/ISSUE_TEMPLATE/config.yml",),
}
"""The schemas that GitHub's files must fit, as check-jsonschema calls them."""
AUDIT = (
    str(Path(sys.executable).with_name("zizmor")),
    "--offline",
    "--quiet",
    "--strict-collection",
    "--collect=all",
    "--persona=pedantic",
    ".github",
    ".pre-commit-config.yaml",
)
"""The workflows' security. An exception stands in the file that it is about, with its reason."""


def run_tests(*, everything: bool, only: str, match: str, require: bool) -> int:
    """Run pytest in a process of its own; its exit status."""
    if only and only not in FOLDERS:
        raise UsageError(f"no folder of tests '{only}'{did_you_mean(only, FOLDERS)}")
    at_once = str(min(processors(), MOST_AT_ONCE))
    command = ["-m", "pytest", "-n", at_once, f"tests/{only}" if only else "tests"]
    if everything:
        command.append("--everything")
    if require:
        command.append("--no-skips")
    if match:
        command += ["-k", match]
    return _python(command)


def run_linters(*, fix: bool) -> int:
    """Run ruff, mypy, and the checks of the workflows; 0 if all are content."""
    steps = (
        ["-m", "ruff", "check", *(["--fix"] if fix else []), "."],
        ["-m", "ruff", "format", *([] if fix else ["--check"]), "."],
        ["-m", "mypy"],
        *(_schema(name, *patterns) for name, patterns in SCHEMAS.items()),
    )
    return max(*(_python(step) for step in steps), _run(AUDIT))


def _schema(name: str, *patterns: str) -> list[str]:
    """A check of files by a schema that check-jsonschema brings with it, without a network."""
    files = [str(path.relative_to(ROOT)) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return ["-m", "check_jsonschema", "--quiet", "--builtin-schema", name, *files]


def _python(words: Sequence[str]) -> int:
    return _run([sys.executable, *words])


def _run(command: Sequence[str]) -> int:
    child = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ))  # noqa: S603
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
