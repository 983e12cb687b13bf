"""Pins: exact versions of every package, in pyproject.toml and the hashed requirements."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from kernels.errors import EngineError, MissingToolError
from toolchains.archive import write_whole
from toolchains.cache import ROOT
from toolchains.process import run

PROJECT = ROOT / "pyproject.toml"
REQUIREMENTS = {
    ROOT / ".ci" / "requirements.txt": ("--group", "dev", "--group", "steps"),
    ROOT / "docker" / "requirements.txt": ("--only-group", "steps"),
}
HELD = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1", "atheris": "3.0.0"}
"""Versions that are chosen by hand, and why: see pyproject.toml."""
LIST = re.compile(r"constraint-dependencies = \[\n(.*?)\]\n", re.DOTALL)
TIMEOUT = 600.0


def pinned(text: str) -> dict[str, str]:
    """Versions by package in a constraint list or a requirements file."""
    return dict(re.findall(r"^\s*\"?([a-z0-9-]+)==([^\s\";\\]+)", text, re.MULTILINE))


def update() -> list[str]:
    """Take the newest versions, write every file of pins; what changed, a line each."""
    original = PROJECT.read_bytes()
    before = pinned(LIST.findall(original.decode())[0])
    try:
        _write_constraints(HELD)
        _uv("lock", "--upgrade")
        found = pinned(_uv("export", "--all-groups", "--no-hashes", "--no-header", "--no-annotate"))
        _write_constraints(found)
        _uv("lock")
        made = {path: _export(groups) for path, groups in REQUIREMENTS.items()}
    except BaseException:
        write_whole(PROJECT, original)
        raise
    for path, data in made.items():
        write_whole(path, data)
    names = sorted(before.keys() | found.keys())
    return [
        f"{name}: {before.get(name, 'new')} -> {found.get(name, 'gone')}"
        for name in names
        if before.get(name) != found.get(name)
    ]


def _export(groups: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "requirements.txt"
        _uv("export", *groups, "--no-header", "--no-annotate", "-o", str(made))
        return made.read_bytes()


def _write_constraints(versions: dict[str, str]) -> None:
    lines = "".join(f'    "{name}=={version}",\n' for name, version in sorted(versions.items()))
    text = PROJECT.read_text(encoding="utf-8")
    write_whole(PROJECT, LIST.sub(f"constraint-dependencies = [\n{lines}]\n", text).encode())


def _uv(*words: str) -> str:
    tool = os.environ.get("UV") or shutil.which("uv")
    if tool is None:
        raise MissingToolError("uv is missing; run this task through `uv run`")
    lines: list[str] = []
    finished = run([tool, "--quiet", *words], timeout=TIMEOUT, cwd=ROOT, on_line=lines.append)
    if finished.status != 0:
        raise EngineError(f"uv {words[0]} failed: {finished.output}")
    return "\n".join(lines)
