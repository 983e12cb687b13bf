"""Pins: exact versions of everything, in pyproject.toml, the hashed requirements and docker/pins.toml."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from kernels.errors import EngineError, MissingToolError
from toolchains.cache import ROOT
from toolchains.engines.image import connect
from toolchains.engines.pinned import PINS, ImagePins, image_pins, wheels_of, write_pins
from toolchains.engines.renewing import renewed
from toolchains.limits import limit
from toolchains.process import run
from toolchains.scratch import write_whole

PROJECT = ROOT / "pyproject.toml"
REQUIREMENTS = ROOT / ".ci" / "requirements.txt"
HELD = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1", "atheris": "3.0.0"}
"""Versions that are chosen by hand, and why: see pyproject.toml."""
LIST = re.compile(r"constraint-dependencies = \[\n(.*?)\]\n", re.DOTALL)


def pinned(text: str) -> dict[str, str]:
    """Versions by package in a constraint list or a requirements file."""
    return dict(re.findall(r"^\s*\"?([a-z0-9-]+)==([^\s\";\\]+)", text, re.MULTILINE))


def update(on_line: Callable[[str], None]) -> list[str]:
    """Take the newest versions, write every file of pins; what changed, a line each."""
    original = PROJECT.read_bytes()
    before = pinned(LIST.findall(original.decode())[0])
    images = image_pins()
    try:
        _write_constraints(HELD)
        _uv("lock", "--upgrade")
        found = pinned(_uv("export", "--all-groups", "--no-hashes", "--no-header", "--no-annotate"))
        _write_constraints(found)
        _uv("lock")
        requirements = _export("--group", "dev", "--group", "steps")
        wheels = wheels_of(_export("--only-group", "steps").decode())
        renewed = _renewed_images(msgspec.structs.replace(images, wheels=wheels), on_line)
    except BaseException:
        write_whole(PROJECT, original)
        raise
    write_whole(REQUIREMENTS, requirements)
    write_pins(PINS, renewed)
    return [
        *_changes("", before, found),
        *_changes("", {"base image": images.base}, {"base image": renewed.base}),
        *(
            line
            for suite, versions in renewed.debian.items()
            for line in _changes(f"{suite}: ", images.debian.get(suite, {}), versions)
        ),
    ]


def _renewed_images(pins: ImagePins, on_line: Callable[[str], None]) -> ImagePins:
    """With what Debian has now, where an engine is here to ask it."""
    try:
        client = connect()
    except EngineError as error:
        on_line(f"{error}: Debian's packages and the base image stay as they are pinned")
        return pins
    return renewed(client, pins, on_line)


def _changes(prefix: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{prefix}{name}: {before.get(name, 'new')} -> {after.get(name, 'gone')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _export(*groups: str) -> bytes:
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
    finished = run([tool, "--quiet", *words], timeout=limit("install"), cwd=ROOT, on_line=lines.append)
    if finished.status != 0:
        raise EngineError(f"uv {words[0]} failed: {finished.output}")
    return "\n".join(lines)
