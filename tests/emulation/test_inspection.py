"""The inspection of a library sees each broken promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kernels.manifest import Manifest
from kernels.models import read_model
from tests.unit.test_listing import gemm, write
from toolchains.inspection import inspect_library, inspect_runs
from toolchains.link import zig_environment
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.report import Inspection, Row
from toolchains.target import find_target

TARGET = find_target("x86_64")
BAD = """
extern int puts(const char *);
int counter = 1;
int stray(void) { return counter += puts("PATH"); }
int t_g(void) { return stray(); }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, options: Options) -> Path:
    folder = tmp_path_factory.mktemp("inspection")
    result = build(read_model(write(folder, gemm(n="32"))), TARGET, options, Progress())
    assert result.report.inspections
    assert not result.report.broken()
    return options.build / "x86_64" / "t"


def inspected(folder: Path) -> dict[str, Inspection]:
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    return {each.name: each for each in inspect_library(folder, manifest, TARGET, [folder])}


def test_each_broken_promise_is_named(place: Path, tmp_path: Path) -> None:
    for name in ("libt.a", "manifest.json"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    (tmp_path / "bad.c").write_text(BAD.replace("PATH", str(tmp_path)), encoding="utf-8")
    zig = [sys.executable, "-m", "ziglang"]
    compile_it = ["cc", "-target", TARGET.c.zig, "-fPIC", "-fno-sanitize=all", "-c", "bad.c", "-o", "bad.o"]
    link_it = ["ld.lld", "-shared", "-z", "execstack", "-o", "libt.so", "bad.o"]
    for command in (compile_it, link_it):
        subprocess.run([*zig, *command], cwd=tmp_path, env=zig_environment(), check=True)
    found = inspected(tmp_path)
    assert {name for name, each in found.items() if not each.passed} == {
        "undefined symbols",
        "exported symbols",
        "executable stack",
        "writable data",
        "vector instructions",
        "paths of the build machine",
    }
    assert found["undefined symbols"].detail == "puts"
    assert found["vector instructions"].detail == "in 0 of 1 kernels, but not in g"
    assert "stray" in found["exported symbols"].detail


def test_vectors_that_did_not_run_are_seen(place: Path) -> None:
    manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
    row = Row(kernel="g", target="x86_64", cpu="max", status="pass", insns=100, vector_insns=40)
    (fine,) = inspect_runs([row], manifest, TARGET)
    assert fine.passed
    assert "40 %" in fine.detail
    (idle,) = inspect_runs([msgspec.structs.replace(row, vector_insns=0)], manifest, TARGET)
    assert not idle.passed


def test_another_machines_library_is_seen(place: Path) -> None:
    manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
    found = {each.name: each for each in inspect_library(place, manifest, find_target("s390x"), [])}
    assert not found["machine"].passed


def test_deep_stacks_are_seen(place: Path) -> None:
    manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
    deep = tuple(msgspec.structs.replace(kernel, stack_bytes=8193) for kernel in manifest.kernels)
    found = inspect_library(place, msgspec.structs.replace(manifest, kernels=deep), TARGET, [])
    assert [each.name for each in found if not each.passed] == ["stack use"]


def test_the_longest_vectors_count_as_stack(place: Path) -> None:
    manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
    target = find_target("riscv64-rvv")
    for vectors, fine in ((8192 // 128, True), (8192 // 128 + 1, False)):
        (kernel,) = manifest.kernels
        deep = (msgspec.structs.replace(kernel, stack_bytes=0, stack_vectors=vectors),)
        found = inspect_library(place, msgspec.structs.replace(manifest, kernels=deep), target, [])
        (stack,) = [each for each in found if each.name == "stack use"]
        assert stack.passed == fine
        assert stack.detail == f"at most {128 * vectors} bytes, in g, with vectors of 1024 bits"
