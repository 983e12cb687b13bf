"""The project in another folder, as whoever clones it has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT

LISTING = """
name = "small"
source = "a test"

[[kernel]]
name = "product"
op = "gemm"
m = 3
n = 5
k = 4
"""

SEVERAL = (
    LISTING.replace('"small"', '"several"')
    + """
[[kernel]]
name = "convolution"
op = "conv2d"
inputs = { x = [1, 9, 9, 5] }
attributes = { filters = 7, kernel = [3, 3], stride = [2, 2], padding = [1, 1, 1, 1] }
fuse = ["bias", "relu"]

[[kernel]]
name = "share"
op = "softmax"
inputs = { x = [3, 17] }
attributes = { axis = 1 }
"""
)


def copy_of_the_project(folder: Path) -> None:
    """The files of the project as they are now, without what is ignored."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def commit(folder: Path, files: Mapping[str, str]) -> None:
    """Write these files in a repository, and commit all that is new."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["add", "--all"], [*author, "commit", "-qm", "what a release is made of"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def commit_of_the_project(folder: Path, files: Mapping[str, str]) -> None:
    """A repository with one commit: the project as it is now, and these files."""
    copy_of_the_project(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder, files)


def invoke(
    clone: Path, *words: str, before: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a task in a clone, with the packages that are here, by the command `before` if any."""
    return subprocess.run(
        [*before, sys.executable, "-m", "invoke", *words],
        cwd=clone,
        env={**os.environ, **(env or {})},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
