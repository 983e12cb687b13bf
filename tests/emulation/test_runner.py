"""The runner notices what a bad kernel does; each fault has its own word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from kernels.codegen.header import declaration
from kernels.errors import ResourceError
from kernels.graph.planning import plan
from kernels.models import read_model
from kernels.plan import Plan
from tests.emulation.conftest import need_counting
from tests.unit.test_listing import gemm, write
from toolchains.disassembly import functions
from toolchains.emulate import EmulateRequest, Ended, Run, find_machine
from toolchains.engines.local import LocalEngine
from toolchains.link import RUNNER_SOURCES, SOURCES, compiler, counter, runner_table, zig_environment
from toolchains.target import Target, all_targets, find_target

GOOD = "for (int i = 0; i < 6; i++) c[i] = 1.0f;"
FAULTS = {
    GOOD: ("ran", ""),
    GOOD + " c[6] = 1.0f;": ("wrong", "outside its buffers"),
    GOOD + " c[-1] = 1.0f;": ("wrong", "outside its buffers"),
    GOOD + " ((float *)arena)[0] = 1.0f;": ("crash", "SIGSEGV"),
    "return 1;": ("wrong", "did not return 0"),
    "__builtin_trap();": ("illegal|crash", ""),
    "*(volatile int *)8 = 1;": ("crash", "SIGSEGV"),
    'for (;;) __asm__ volatile("");': ("timeout", "no result after 3 s"),
}


def linked(folder: Path, target: Target, planned: Plan, *bodies: str, check: str) -> None:
    """A runner of kernels whose C bodies are ours, and the first's input."""
    source, header = "#include <stdint.h>\n", "#include <stdint.h>\n"
    for kernel, body in zip(planned.kernels, bodies, strict=True):
        used = "".join(f"(void){each.name}; " for each in kernel.operands)
        source += f"{declaration(kernel)}\n{{ {check} {used}(void)arena; {body} return 0; }}\n"
        header += f"{declaration(kernel)};\n"
    (folder / "kernel.c").write_text(source, encoding="utf-8")
    (folder / f"{planned.library}.h").write_text(header, encoding="utf-8")
    (folder / "table.c").write_text(runner_table(planned), encoding="utf-8")
    command = [
        *compiler("zig", target),
        "-O1",
        "-ffreestanding",
        "-fno-builtin",
        "-nostdlib",
        "-static",
        "-fno-pic",
        "-no-pie",
        "-fno-stack-protector",
        "-fno-sanitize=all",
        "-I",
        str(RUNNER_SOURCES),
        "-I",
        ".",
        "-o",
        "runner",
        *SOURCES,
        "table.c",
        "kernel.c",
    ]
    subprocess.run(command, cwd=folder, env=zig_environment(), check=True)
    size = sum(each.bytes for each in planned.kernels[0].operands if each.role != "output")
    (folder / "g.in").write_bytes(bytes(size))


def emulated(
    folder: Path,
    target: Target,
    planned: Plan,
    body: str,
    *,
    check: str,
    cpu: str = "",
    counter_code: bytes = b"",
) -> Ended:
    """How such a kernel ended."""
    linked(folder, target, planned, body, check=check)
    subprocess.run(counter(), cwd=folder, env=zig_environment(), check=True)
    if counter_code:
        (folder / "counter.so").write_bytes(counter_code)
    (ended,) = run_all(folder, target, planned, cpu or target.qemu.cpus[0])
    return ended


def run_all(folder: Path, target: Target, planned: Plan, cpu: str, *, guard: bool = False) -> list[Ended]:
    """How the kernels of a runner ended, in their order, all given the first's input."""
    code = functions(folder / "runner", target)
    request = EmulateRequest(
        target=target,
        cpu=cpu,
        runs=tuple(
            Run(
                kernel=kernel.name,
                input="g.in",
                output=f"{kernel.name}.out",
                timeout=3,
                code=(code[kernel.symbol].start, code[kernel.symbol].end),
                guarded=("g.in", f"{kernel.name}.guarded") if guard else None,
            )
            for kernel in planned.kernels
        ),
    )
    (folder / "r.json").write_bytes(msgspec.json.encode(request))
    (folder / "jobs").write_text("1", encoding="ascii")
    lines: list[str] = []
    LocalEngine().run("toolchains.emulate", folder / "r.json", target, on_line=lines.append)
    ended = {each.kernel: each for each in (msgspec.json.decode(line, type=Ended) for line in lines)}
    return [ended[kernel.name] for kernel in planned.kernels]


CHECK = "if (!a || !b || !c) return -1;"


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return plan(read_model(write(tmp_path, gemm())), find_target("riscv64"))


@pytest.mark.parametrize("body", FAULTS)
def test_a_fault_has_its_word(tmp_path: Path, planned: Plan, body: str) -> None:
    outcome, reason = FAULTS[body]
    ended = emulated(tmp_path, find_target("riscv64"), planned, body, check=CHECK)
    assert ended.outcome in outcome.split("|"), ended
    assert reason in ended.reason


IN_PLACE = {
    "": ("ran", ""),
    "c[6] = 1.0f;": ("wrong", "outside its buffers"),
    "c[-1] = 1.0f;": ("wrong", "outside its buffers"),
}


@pytest.mark.parametrize("body", IN_PLACE)
def test_an_operand_that_may_be_in_place_lies_in_the_output(tmp_path: Path, body: str) -> None:
    """It is read before the call, over what the output is filled with, and guarded as one with it."""
    target = find_target("riscv64")
    planned = plan(read_model(write(tmp_path, gemm(fuse='["add"]'))), target)
    same = "if (residual != c) return 1; for (int i = 0; i < 6; i++) if (c[i] != 0.0f) return 1;"
    outcome, reason = IN_PLACE[body]
    check = CHECK.replace("!c", "!c || !residual")
    ended = emulated(tmp_path, target, planned, f"{same} {body}", check=check)
    assert ended.outcome == outcome, ended
    assert reason in ended.reason
    assert (tmp_path / "g.out").read_bytes() == bytes(4 * 6)


def test_a_kernel_must_refuse_a_null_pointer(tmp_path: Path, planned: Plan) -> None:
    ended = emulated(tmp_path, find_target("riscv64"), planned, GOOD, check="")
    assert ended.outcome == "wrong"
    assert "null pointer" in ended.reason


def test_vector_code_on_a_processor_without_vectors_is_illegal(tmp_path: Path, planned: Plan) -> None:
    body = '__asm__ volatile(".4byte 0xcd027057");'  # vsetivli zero, 4, e32, m1, ta, ma
    ended = emulated(tmp_path, find_target("riscv64"), planned, body, check=CHECK)
    assert ended.outcome == "illegal"


def test_a_cpu_that_the_emulator_lacks_is_skipped_with_its_reason(tmp_path: Path, planned: Plan) -> None:
    ended = emulated(tmp_path, find_target("riscv64"), planned, GOOD, check=CHECK, cpu="rv64,nonsense=true")
    assert ended.outcome == "skipped"
    assert "does not take -cpu rv64,nonsense=true" in ended.reason


def test_a_vector_length_that_was_not_asked_for_is_skipped(tmp_path: Path, planned: Plan) -> None:
    target = find_target("riscv64-rvv256")
    ended = emulated(
        tmp_path, target, planned, GOOD, check=CHECK, cpu="rv64,v=true,vext_spec=v1.0,vlen=128"
    )
    assert ended.outcome == "skipped"
    assert "has vectors of 128 bits" in ended.reason


@pytest.mark.parametrize("target", ["aarch64", "armv7", "i686", "ppc64le", "riscv64", "s390x", "x86_64"])
def test_instructions_are_counted_one_by_one(tmp_path: Path, planned: Plan, target: str) -> None:
    need_counting(find_target(target))
    totals = []
    for number, extra in enumerate(("", "nop; nop; nop; ")):
        folder = tmp_path / str(number)
        folder.mkdir()
        loop = f'for (int i = 0; i < 1000; i++) __asm__ volatile("nop; {extra}" ::: "memory");'
        twice = [
            emulated(folder, find_target(target), planned, f"{GOOD} {loop}", check=CHECK) for _ in "12"
        ]
        assert twice[0].blocks == twice[1].blocks
        totals.append(sum(length * runs for _, length, runs in twice[0].blocks or ()))
    assert totals[0] > 2000, "a nop and a jump for each turn, at least"
    assert 3000 <= totals[1] - totals[0] < 3016, "three for each turn, and what aligns the loop"


@pytest.mark.parametrize("target", ["aarch64", "riscv64", "x86_64"])
def test_blocks_are_counted_however_many_there_are(tmp_path: Path, planned: Plan, target: str) -> None:
    """A network of 200,000 nodes has hundreds of thousands of them in its run."""
    need_counting(find_target(target))
    jump = {"aarch64": "b", "riscv64": "j", "x86_64": "jmp"}[target]
    body = f'{GOOD} __asm__ volatile(".rept 70000\\n {jump} 1f\\n 1:\\n .endr");'
    ended = emulated(tmp_path, find_target(target), planned, body, check=CHECK)
    assert len([block for block in ended.blocks or () if block[1:] == (1, 1)]) > 69_900


def test_a_counter_that_cannot_write_is_a_matter_of_the_machine(tmp_path: Path, planned: Plan) -> None:
    target = find_target("riscv64")
    need_counting(target)
    (tmp_path / "g.out.blocks").mkdir()
    with pytest.raises(ResourceError, match="cannot be counted: counter: its file cannot be written"):
        emulated(tmp_path, target, planned, GOOD, check=CHECK)


def test_a_counter_that_cannot_be_loaded_costs_the_counts_alone(tmp_path: Path, planned: Plan) -> None:
    folder = tmp_path / "with, a comma"
    folder.mkdir()
    target = find_target("riscv64")
    need_counting(target)
    counted = emulated(folder, target, planned, GOOD, check=CHECK)
    assert counted.blocks
    broken = emulated(folder, target, planned, GOOD, check=CHECK, counter_code=b"not a library")
    assert broken.outcome == "ran"
    assert broken.blocks is None
    assert "does not load the counter" in broken.uncounted


def test_no_emulator_is_skipped_with_what_to_do(tmp_path: Path, planned: Plan) -> None:
    target = find_target("riscv64")
    qemu = msgspec.structs.replace(target.qemu, binary="qemu-pdp11")
    ended = emulated(tmp_path, msgspec.structs.replace(target, qemu=qemu), planned, GOOD, check=CHECK)
    assert ended.outcome == "skipped"
    assert "`invoke setup` brings it" in ended.reason


def timed(folder: Path, target: Target, *words: str) -> subprocess.CompletedProcess[str]:
    """What the runner says of a timing, under the target's first emulated processor."""
    machine = find_machine(target, target.qemu.cpus[0])
    command = [*machine.command, "./runner", "time", f"{10**6:x}", *words]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", [each.name for each in all_targets().values() if each.qemu.cpus])
def test_kernels_are_timed_in_turn(tmp_path: Path, planned: Plan, name: str) -> None:
    target = find_target(name)
    linked(tmp_path, target, planned, GOOD, check=CHECK)
    reason = find_machine(target, target.qemu.cpus[0]).reason
    if "older than" in reason:  # Debian 12's QEMU has no vectors of LoongArch: it was linked, at least
        return
    done = timed(tmp_path, target, "g", "g.in", "one.out", "g", "g.in", "two.out")
    assert done.returncode == 0, done
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:3] for line in lines] == [["g", "0", "0"]] * 2, "the second's output is the first's"
    for _, _, _, repeats, *samples in lines:
        assert int(repeats, 16) > 1, "a call takes less than a sample"
        assert 5 <= len(samples) <= 61
        assert all(int(sample, 16) > 0 for sample in samples)
    ones = np.ones(6, dtype=np.dtype(np.float32).newbyteorder(target.byte_order))
    assert (tmp_path / "one.out").read_bytes() == ones.tobytes()
    assert not (tmp_path / "two.out").exists()


@pytest.mark.parametrize(("body", "fault"), [(GOOD + " c[6] = 1.0f;", "5"), ("return 1;", "4")])
def test_a_bad_kernel_is_not_timed(tmp_path: Path, planned: Plan, body: str, fault: str) -> None:
    target = find_target("riscv64")
    linked(tmp_path, target, planned, body, check=CHECK)
    done = timed(tmp_path, target, "g", "g.in", "g.out")
    assert (done.returncode, done.stdout) == (0, f"g {fault} 0 1\n")


@pytest.mark.parametrize(
    ("words", "status"),
    [(("g", "g.in"), 2), (("h", "g.in", "g.out"), 2), (("g", "none", "g.out"), 3), (("g", "g.in", "/"), 3)],
)
def test_a_timing_that_cannot_be_made_has_its_status(
    tmp_path: Path, planned: Plan, words: tuple[str, ...], status: int
) -> None:
    target = find_target("riscv64")
    linked(tmp_path, target, planned, GOOD, check=CHECK)
    assert timed(tmp_path, target, *words).returncode == status


def test_the_step_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toolchains.link", str(tmp_path / "none.json")],
        check=False,
        capture_output=True,
    )
    assert done.returncode != 0
