"""Target files: what they say, by which names they are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.errors import InputError, UsageError
from kernels.graph.planning import plan
from kernels.models import catalog, read_model
from toolchains.target import ALIASES, TARGETS, all_targets, find_target, find_targets


def test_the_eleven_targets_are_there() -> None:
    names = "aarch64 armv7 i686 loongarch64 ppc64le riscv64 riscv64-rvv riscv64-rvv256 s390x x86_64"
    assert {*names.split(), "x86_64-avx512"} <= set(all_targets())
    assert find_target("s390x").byte_order == ">"
    assert find_target("armv7").pointer_bits == 32
    assert len(find_target("riscv64-rvv").qemu.cpus) >= 2


def test_every_alias_leads_to_a_target() -> None:
    for alias, name in ALIASES.items():
        assert find_target(alias).name == name
    assert [t.name for t in find_targets("arm64, amd64,arm64")] == ["aarch64", "x86_64"]
    assert find_targets("all") == tuple(all_targets().values())


@pytest.mark.parametrize("words", ["riscv46", "", " , ", "x86_64,armv9"])
def test_unknown_targets_are_refused(words: str) -> None:
    with pytest.raises(UsageError):
        find_targets(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("vector_bits = 128", "vector_bit = 128"), "vector_bit"),
        (("pointer_bits = 32", "pointer_bits = 31"), "31"),
        (('name = "armv7"', 'name = "armv8"'), "but the file says 'armv7'"),
        (("[cpu]", "[cpu"), "armv7.toml"),
        (("fma_per_cycle = 1", "fma_per_cycle = 0"), ">= 1"),
        (("bytes = 32768, ways = 2", "bytes = 64, ways = 2"), "do not hold 2 lines"),
    ],
)
def test_a_target_file_with_a_fault_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = (TARGETS / "armv7.toml").read_text(encoding="utf-8")
    (tmp_path / "armv7.toml").write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=r"armv7\.toml") as caught:
        all_targets(tmp_path)
    assert message in str(caught.value)


def test_the_register_tile_fits_the_registers_of_every_target() -> None:
    for target in all_targets().values():
        for kernel in plan(read_model(catalog()["resnet50"]), target).kernels:
            if kernel.kind not in ("conv2d", "gemm"):
                continue
            columns = target.cpu.registers_of(int(kernel.schedule["nr"]))
            used = int(kernel.schedule["mr"]) * columns + columns
            assert used <= target.cpu.vector_registers, (target.name, kernel.name, kernel.schedule)
