"""Peers of Debian: found in the system or unpacked, with what they need; else how to get them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernels.errors import MissingToolError
from toolchains.bench.peers import debian
from toolchains.bench.sysroots import unpacked_place
from toolchains.link import zig_environment
from toolchains.native import own_target
from toolchains.target import find_target

OWN = find_target(own_target())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and in it where BLIS would be unpacked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = unpacked_place(OWN, debian.PACKAGES["BLIS"])
    assert found.is_relative_to(tmp_path)
    return found


def compile_library(name: str, text: str, folder: Path, *others: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.c").write_text(text, encoding="utf-8")
    zig = [sys.executable, "-m", "ziglang", "cc", "-O2", "-shared", "-fPIC", "-nostdlib"]
    command = [*zig, f"-Wl,-soname,{name}", "-o", name, "source.c", *others]
    subprocess.run(command, cwd=folder, check=True, env=zig_environment())


def test_what_a_library_needs_is_loaded_before_it(place: Path) -> None:
    inner, outer = place / "usr" / "lib", place / "usr" / "lib" / "deep"
    compile_library("libkernfitinner.so.1", "int inner(void) { return 41; }", inner)
    text = "int inner(void); int outer(void) { return inner() + 1; }"
    compile_library("libkernfitouter.so.1", text, outer, "../libkernfitinner.so.1")
    assert debian.load(OWN, "BLIS", "libkernfitouter.so.1").outer() == 42


@pytest.mark.usefixtures("place")
def test_a_library_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(MissingToolError, match="invoke setup --peers"):
        debian.load(OWN, "BLIS", "libkernfitabsent.so.1")
    with pytest.raises(MissingToolError, match="invoke setup --peers"):
        debian.find(OWN, "BLIS", "usr/include/kernfit-absent")


def test_a_file_is_found_in_the_system_first(place: Path) -> None:
    (place / "proc").mkdir(parents=True)
    (place / "proc" / "self").touch()
    assert debian.find(OWN, "BLIS", "proc/self") == Path("/proc/self")
    (place / "kernfit-only-here").touch()
    assert debian.find(OWN, "BLIS", "kernfit-only-here") == place / "kernfit-only-here"
