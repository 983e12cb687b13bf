"""The project's own tests and linters, as tasks run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from kernels.errors import UsageError, did_you_mean
from toolchains.cache import ROOT

FOLDERS = ("unit", "emulation", "docker", "conformance")


def run_tests(*, everything: bool, only: str, match: str, require: bool) -> int:
    """Run pytest in a process of its own; its exit status."""
    if only and only not in FOLDERS:
        raise UsageError(f"no folder of tests '{only}'{did_you_mean(only, FOLDERS)}")
    command = ["-m", "pytest", f"tests/{only}" if only else "tests"]
    if everything:
        command.append("--everything")
    if require:
        command.append("--no-skips")
    if match:
        command += ["-k", match]
    return _python(command)


def run_linters(*, fix: bool) -> int:
    """Run ruff and mypy; 0 if both are content."""
    steps = (
        ["-m", "ruff", "check", *(["--fix"] if fix else []), "."],
        ["-m", "ruff", "format", *([] if fix else ["--check"]), "."],
        ["-m", "mypy"],
    )
    return max(_python(step) for step in steps)


def _python(words: Sequence[str]) -> int:
    child = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=dict(os.environ))  # noqa: S603
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
