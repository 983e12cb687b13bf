"""A wrong kernel and a broken emulator are told apart, by real emulators of which one is broken."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.plan import Plan
from tests.emulation.test_runner import CHECK, linked
from tests.unit.test_listing import gemm, write
from toolchains.checking import Checking
from toolchains.emulators import find_emulator
from toolchains.engines.local import LocalEngine
from toolchains.link import counter, zig_environment
from toolchains.progress import Progress
from toolchains.quarantine import known_bugs
from toolchains.report import Row
from toolchains.share import Share
from toolchains.target import Target, find_target

RIGHT = (
    "for (int i = 0; i < 2; i++) for (int j = 0; j < 3; j++) { float s = 0; "
    "for (int q = 0; q < 4; q++) s += a[4 * i + q] * b[3 * q + j]; c[3 * i + j] = s; }"
)
WRONG = f"{RIGHT} c[1] += 1;"
TRAPPED = f"{RIGHT} __builtin_trap();"
BROKEN = "file[3] ^= 64"
"""Another number in the first element: its exponent's highest bit but one."""
FINE = "pass"


def another_emulator(folder: Path, target: Target, harm: str) -> None:
    """A QEMU of version 9.9.9 in a folder: the real one, and then something is done to the output."""
    real = find_emulator(target.qemu)
    assert real is not None, "`invoke setup` brings it"
    folder.mkdir()
    path = folder / target.qemu.binary
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, subprocess, sys\n"
        f"words = [{str(real.path)!r}, *sys.argv[1:]]\n"
        "if '--version' in words:\n"
        "    print('qemu version 9.9.9')\n"
        "    raise SystemExit\n"
        "done = subprocess.run(words).returncode\n"
        "for path in map(pathlib.Path, words[1:]):\n"
        "    if path.suffix == '.out' and path.is_file():\n"
        "        file = bytearray(path.read_bytes())\n"
        f"        {harm}\n"
        "        path.write_bytes(file)\n"
        "if done < 0:\n"
        "    os.kill(os.getpid(), -done)\n"
        "raise SystemExit(done)\n",
        encoding="utf-8",
    )
    path.chmod(0o755)


def rows_of(folder: Path, target: Target, body: str) -> list[Row]:
    """How a product whose C body is ours was judged on every processor."""
    planned: Plan = plan(read_model(write(folder, gemm())), target)
    (kernel,) = planned.kernels
    plain = tuple(msgspec.structs.replace(each, packing=None) for each in kernel.operands)
    kernel = msgspec.structs.replace(kernel, operands=plain)
    planned = msgspec.structs.replace(planned, kernels=(kernel,))
    linked(folder, target, planned, body, check=CHECK)
    subprocess.run(counter(), cwd=folder, env=zig_environment(), check=True)
    checking = Checking(
        plan=planned, target=target, engine=LocalEngine(), share=Share(1), place=folder, build=folder
    )
    return list(checking.run(Progress()).rows)


@pytest.mark.parametrize(
    ("body", "harm", "status", "fault", "told"),
    [
        (RIGHT, FINE, "pass", "", ""),
        (RIGHT, BROKEN, "wrong", "emulator", "it is right under qemu-riscv64 "),
        (WRONG, FINE, "wrong", "kernel", "too: wrong"),
        (TRAPPED, FINE, "illegal", "kernel", "too: illegal"),
    ],
)
def test_a_broken_emulator_is_told_from_a_wrong_kernel(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    harm: str,
    status: str,
    fault: str,
    told: str,
) -> None:
    target = find_target("riscv64")
    another_emulator(tmp_path / "bin", target, harm)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (row,) = rows_of(tmp_path, target, body)
    assert (row.status, row.fault) == (status, fault), row
    assert row.emulator == "qemu-riscv64 9.9.9"
    assert told in row.reason


def test_without_another_emulator_the_lengths_of_vectors_are_compared(tmp_path: Path) -> None:
    target = find_target("riscv64-rvv256")
    rows = rows_of(tmp_path, target, WRONG)
    assert len(rows) == len(target.checked_on) > 1
    assert {(row.status, row.fault) for row in rows} == {("wrong", "kernel")}
    only = 'unsigned long n; __asm__("csrr %0, 0xc22" : "=r"(n)); if (n == 64) c[1] += 1;'
    again = tmp_path / "again"
    again.mkdir()
    rows = rows_of(again, target, f"{RIGHT} {only}")
    wrong = [row for row in rows if row.status != "pass"]
    assert [row.vector_bits for row in wrong] == [512]
    assert wrong[0].fault == "unknown"
    assert "right on rv64,v=true,vext_spec=v1.0,vlen=256" in wrong[0].reason


def test_no_record_of_a_bug_has_expired() -> None:
    today = dt.datetime.now(tz=dt.UTC).date()
    for bug in known_bugs():
        assert bug.link.startswith("https://")
        assert today <= bug.expires, f"{bug.id}: is it mended? If not, say so with a later day"
