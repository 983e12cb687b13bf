"""The stack of a function is known on every target, whatever the compiler keeps its frame by."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kernels.errors import KernfitError
from toolchains.frames import Stack, deepest, stack_of
from toolchains.inspection import MOST_STACK_BYTES
from toolchains.link import compiler, zig_environment
from toolchains.target import Target, all_targets, find_target

REST = 400
"""Of a frame: saved registers, and what each keeps free for the next to save its own in (s390x, Power)."""


def compiled(folder: Path, target: Target, source: str, *words: str) -> Path:
    """An object of C code with its unwind tables."""
    (folder / "f.c").write_text(source, encoding="utf-8")
    command = [*compiler("zig", target), "-O1", "-g", "-ffreestanding", "-fno-sanitize=all"]
    command += [
        "-fomit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-fno-stack-protector",
    ]
    command += [*words, "-c", "f.c", "-o", "f.o"]
    subprocess.run(command, cwd=folder, env=zig_environment(), check=True)
    return folder / "f.o"


@pytest.mark.parametrize("target", list(all_targets().values()), ids=lambda target: target.name)
def test_a_frame_and_that_of_what_it_calls_are_added(tmp_path: Path, target: Target) -> None:
    source = (
        "__attribute__((noinline)) static int inner(volatile char *p);\n"
        "int outer(void) { volatile char big[9000]; big[3] = 1; return inner(big) + inner(big + 1); }\n"
        "static int inner(volatile char *p) "
        '{ volatile char own[1000]; __asm__ volatile("" : : "r"(own) : "memory"); return own[7] + *p; }\n'
    )
    stack = stack_of(compiled(tmp_path, target, source))
    assert 10_000 <= stack.bytes <= 10_000 + 2 * REST
    assert stack.vectors == 0
    assert stack.at(target.longest_vector_bits) > MOST_STACK_BYTES


def test_vectors_of_the_processors_own_length_are_counted(tmp_path: Path) -> None:
    source = (
        "#include <riscv_vector.h>\n"
        "float f(const float *p) { vfloat32m8_t v = __riscv_vle32_v_f32m8(p, 8); "
        "volatile vfloat32m8_t w = v; return __riscv_vfmv_f_s_f32m8_f32(w); }\n"
    )
    target = find_target("riscv64-rvv")
    stack = stack_of(compiled(tmp_path, target, source, "-mcpu=generic_rv64+m+a+f+d+c+v"))
    assert stack.vectors == 8
    assert stack.at(1024) - stack.at(128) == 8 * (1024 - 128) // 8


def test_a_frame_of_which_nothing_is_told_is_refused(tmp_path: Path) -> None:
    source = "int f(int n) { volatile char own[n]; own[0] = 1; return own[n - 1]; }\n"
    with pytest.raises(KernfitError, match="keeps its frame otherwise"):
        stack_of(compiled(tmp_path, find_target("aarch64"), source))


def test_the_deepest_is_as_deep_as_any() -> None:
    stack = deepest([Stack(bytes=100, vectors=1), Stack(bytes=10, vectors=9)])
    assert stack == Stack(bytes=100, vectors=9)
    assert stack + Stack(bytes=1, vectors=2) == Stack(bytes=101, vectors=11)
