"""What a C developer does with an archive: compile the example, with pkg-config and with CMake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels import check
from kernels.codegen.package import example_kernel, pattern
from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.pack import unpack
from tests.targets import linking_compiler
from tests.unit.test_listing import HEAD, conv, gemm, write
from toolchains.emulators import find_emulator
from toolchains.link import zig_environment
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import find_target

TARGET = find_target("x86_64")
ZIG = [sys.executable, "-m", "ziglang"]
COMPILERS = {
    "gcc": ["gcc"],
    "g++": ["g++"],
    "clang": [*ZIG, "cc", "-target", TARGET.c.zig],
    "clang++": [*ZIG, "c++", "-target", TARGET.c.zig],
}
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-static"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, options: Options) -> tuple[Path, list[str]]:
    """The unpacked archive of a small library, and the lines that its example should print."""
    folder = tmp_path_factory.mktemp("package")
    body = gemm(m="3", n="5", k="4", transpose='"nt"', fuse='["bias", "relu"]', weights="[]")
    path = write(folder, body + conv("filters = 4, kernel = [3, 3]"), HEAD.replace('"t"', '"small"'))
    program = read_model(path)
    built = build(program, TARGET, options, Progress())
    subprocess.run(["tar", "xf", str(built.archive)], cwd=folder, check=True)
    kernel = example_kernel(plan(program, TARGET))
    arrays = {}
    for operand in kernel.operands:
        if operand.role != "output":
            period, factor, offset = pattern(operand)
            flat = (np.arange(operand.elements) % period * factor + offset).astype(operand.dtype.value)
            packing = operand.packing
            arrays[operand.name] = (
                unpack(flat, packing, operand.shape) if packing else flat.reshape(operand.shape)
            )
    values = check.reference(kernel, arrays).value.ravel()[:8]
    lines = [f"{kernel.output.name}[{i}] = {value:g}" for i, value in enumerate(values)]
    return folder / built.archive.name.removesuffix(".tar.gz"), lines


def run(program: Path) -> list[str]:
    """What a program for x86-64 prints, under QEMU."""
    emulator = find_emulator(TARGET.qemu)
    assert emulator is not None
    command = [str(emulator.path), "-cpu", TARGET.qemu.cpus[0], str(program)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def flags(folder: Path) -> list[str]:
    """What pkg-config says of the library, to link it statically."""
    (name,) = [path.stem for path in folder.glob("*.pc")]
    found = subprocess.run(
        [sys.executable, "-m", "pkgconf", "--cflags", "--libs", name],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PKG_CONFIG_PATH": str(folder)},
    )
    return found.stdout.split()


@pytest.mark.parametrize("name", ["clang", "clang++"])
def test_the_example_compiles_without_a_warning(
    name: str, unpacked: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """It is linked with --everything: zig makes a C library first, and one of C++, which takes minutes."""
    folder = unpacked[0]
    language = ["-x", "c++"] if name.endswith("++") else ["-std=c99"]
    included = [flag for flag in flags(folder) if flag.startswith("-I")]
    command = [*COMPILERS[name], *STRICT[:-1], *language, *included, "-c", str(folder / "example.c")]
    subprocess.run([*command, "-o", str(tmp_path / "example.o")], check=True, env=zig_environment())


@pytest.mark.parametrize(
    "name",
    ["gcc", "g++", *(pytest.param(name, marks=pytest.mark.everything) for name in ("clang", "clang++"))],
)
def test_the_example_compiles_and_prints_the_right_numbers(
    name: str, unpacked: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, expected = unpacked
    command = COMPILERS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    language = ["-x", "c++"] if name.endswith("++") else ["-std=c99"]
    program = tmp_path / "example"
    subprocess.run(
        [
            *command,
            *STRICT,
            *language,
            str(folder / "example.c"),
            "-x",
            "none",
            *flags(folder),
            "-o",
            str(program),
        ],
        check=True,
        env=zig_environment(),
    )
    assert run(program) == expected


def test_cmake_finds_the_library(unpacked: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, expected = unpacked
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(example C)\nfind_package(small CONFIG REQUIRED)\n"
        f"add_executable(example {folder / 'example.c'})\n"
        "target_link_libraries(example PRIVATE kernfit::small -static)\n",
        encoding="utf-8",
    )
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {" ".join(linking_compiler(TARGET))} "$@"\n', encoding="utf-8")
    compiler.chmod(0o755)
    scripts = Path(sys.executable).parent
    configure = [
        str(scripts / "cmake"),
        "-S",
        ".",
        "-B",
        "out",
        "-G",
        "Ninja",
        f"-DCMAKE_C_COMPILER={compiler}",
        f"-DCMAKE_MAKE_PROGRAM={scripts / 'ninja'}",
        f"-DCMAKE_PREFIX_PATH={folder}",
    ]
    for command in (configure, [str(scripts / "cmake"), "--build", "out"]):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env=zig_environment()
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert run(tmp_path / "out" / "example") == expected


def test_no_file_of_the_archive_names_this_machine(unpacked: tuple[Path, list[str]]) -> None:
    folder, _ = unpacked
    for path in folder.iterdir():
        data = path.read_bytes()
        assert str(Path.home()).encode() + b"/" not in data, path.name
        assert not re.search(rb"/tmp/|pytest-", data), path.name
