"""Every access outside a buffer is found, on every target, even a read that changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from kernels.graph.planning import plan
from kernels.models import read_model
from tests.emulation.test_runner import CHECK, GOOD, linked, run_all
from tests.unit.test_listing import gemm, write
from toolchains.emulate import find_machine
from toolchains.link import counter, zig_environment
from toolchains.target import Target, all_targets

FAULTS = {
    "(void)*(const volatile float *)&a[4];": "a, behind its end",
    "(void)*(const volatile float *)&a[-1];": "a, before its beginning",
    "(void)*(const volatile float *)&a[4 + 16000];": "a, behind its end",
    "(void)*(const volatile float *)&b[6];": "b, behind its end",
    "(void)*(const volatile float *)&b[-1];": "b, before its beginning",
    "(void)*(const volatile float *)&c[6];": "c, behind its end",
    "(void)*(const volatile float *)&c[-1];": "c, before its beginning",
    "(void)((const volatile float *)arena)[16];": "arena, behind its end",
    "(void)((const volatile float *)arena)[-1];": "arena, before its beginning",
    "*(volatile float *)&c[6 + 1000] = 1.0f;": "c, behind its end",
}
"""Of a product of 2x2 and 2x3 matrices, with an arena of 64 bytes; the last is beyond all canaries."""
FINE = "__builtin_prefetch(a + 4); __builtin_prefetch(b - 1); __builtin_prefetch(c + 9999, 1);"


def outcomes(folder: Path, target: Target, *bodies: str) -> list[tuple[str, str]]:
    """How kernels of these C bodies ended between guard pages, on the target's first processor."""
    planned = plan(read_model(write(folder, gemm(m="2", n="3", k="2"))), target)
    (kernel,) = planned.kernels
    plain = tuple(msgspec.structs.replace(each, packing=None) for each in kernel.operands)
    kernels = tuple(
        msgspec.structs.replace(
            kernel, name=f"g{number}", symbol=f"t_g{number}", operands=plain, arena_bytes=64
        )
        for number in range(len(bodies))
    )
    planned = msgspec.structs.replace(planned, kernels=kernels)
    whole = [f"{GOOD} {body}" for body in bodies]
    linked(folder, target, planned, *whole, check=f"{CHECK} if (!arena) return -1;")
    subprocess.run(counter(), cwd=folder, env=zig_environment(), check=True)
    ended = run_all(folder, target, planned, target.checked_on[0], guard=True)
    return [(each.outcome, each.reason) for each in ended]


@pytest.mark.parametrize("target", list(all_targets().values()), ids=lambda target: target.name)
def test_an_access_outside_is_found_on_every_target(tmp_path: Path, target: Target) -> None:
    """And a prefetch, which harms nobody, is none."""
    *found, prefetched = outcomes(tmp_path, target, *FAULTS, FINE)
    missing = find_machine(target, target.checked_on[0]).reason
    if missing:  # the image's newer QEMU has it
        assert {*found, prefetched} == {("skipped", missing)}
    else:
        assert found == [("crash", f"read or wrote outside {told}") for told in FAULTS.values()]
        assert prefetched == ("ran", "")


def test_what_is_no_access_outside_keeps_its_word(tmp_path: Path) -> None:
    """Of a result that depends on the place, as an aligned load's that cuts the address, and a trap."""
    place = "if ((uintptr_t)a & 16) c[0] = 2.0f;"
    trap = "if (!((uintptr_t)a & 8)) *(volatile int *)8 = 1;"
    assert outcomes(tmp_path, all_targets()["riscv64"], place, trap) == [
        ("wrong", "the kernel's result depends on where its buffers lie"),
        ("crash", "SIGSEGV"),
    ]
