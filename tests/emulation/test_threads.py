"""Functions are reentrant: four threads at once, with an arena each, compute what one alone does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from kernels import whole
from kernels.check import input_bytes, make_inputs
from kernels.graph.planning import plan
from kernels.models import catalog, read_model
from kernels.plan import Plan
from tests.emulation.conftest import Edges, built_for
from tests.emulation.test_runner import CHECK, GOOD, linked
from tests.sketches import branching
from tests.targets import at_first, linking_compiler
from tests.unit.test_listing import gemm, write
from toolchains.emulate import find_machine, find_other_machine
from toolchains.link import RUNNER_SOURCES, zig_environment
from toolchains.native import own_target
from toolchains.pipeline import REFERENCE, Options, build
from toolchains.progress import Progress
from toolchains.target import Target, find_target

SOURCE = Path(__file__).parent / "threads.c"
HERE = "x86_64"
"""Runs itself where it can, fast, and so in every run; the others with --everything."""


def program(folder: Path, target: Target, *linked_too: str) -> Path:
    """The program of threads with the table that is in a folder, as a static executable."""
    command = [
        *linking_compiler(target),
        "-O1",
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-static",
    ]
    command += ["-I", str(RUNNER_SOURCES), "-I", ".", "-o", "threads", str(SOURCE), "table.c", *linked_too]
    subprocess.run([*command, "-lpthread"], cwd=folder, env=zig_environment(), check=True)
    return folder / "threads"


def run(executable: Path, target: Target, words: list[str]) -> subprocess.CompletedProcess[str]:
    """On this machine itself where it can, or else under the first emulated processor."""
    cpu = target.checked_on[0]
    itself = find_other_machine(target, cpu)
    machine = itself if itself.name and not itself.command else find_machine(target, cpu)
    assert not machine.reason
    return subprocess.run(
        [*machine.command, str(executable), *words],
        cwd=executable.parent,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def assert_reentrant(place: Path, target: Target, folder: Path) -> None:
    """Every kernel of the library in `place`, from four threads; linked at least, where nothing runs it."""
    planned = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    executable = program(place, target, f"lib{planned.library}.a")
    if find_machine(target, target.checked_on[0]).reason:
        return
    for kernel in planned.kernels:
        given = folder / "operands.in"
        given.write_bytes(input_bytes(kernel, make_inputs(kernel, target), target))
        ended = run(executable, target, [kernel.name, str(given)])
        assert (ended.returncode, ended.stdout) == (0, ""), (kernel.name, ended)


@pytest.mark.parametrize("target", at_first(HERE))
def test_four_threads_compute_what_one_does(
    target: Target, edges: Edges, options: Options, tmp_path: Path
) -> None:
    built_for(target, edges, options)
    assert_reentrant(options.build / target.name / "edges", target, tmp_path)


@pytest.mark.everything
@pytest.mark.parametrize("model", sorted(catalog()))
def test_four_threads_compute_the_catalogue(model: str, options: Options, tmp_path: Path) -> None:
    """For the target that this machine runs itself: under QEMU that would take days."""
    target = find_target(own_target())
    sampled = msgspec.structs.replace(options, checks="sample")
    build(read_model(catalog()[model]), target, sampled, Progress(quiet=True))
    assert_reentrant(options.build / target.name / model, target, tmp_path)


@pytest.mark.parametrize("name", ["x86_64", pytest.param("armv7", marks=pytest.mark.everything)])
def test_four_threads_run_a_network_as_one_does(name: str, options: Options, tmp_path: Path) -> None:
    target = find_target(name)
    build(branching("threads"), target, options, Progress())
    place = options.build / name / "threads"
    planned = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    assert planned.network is not None
    given = whole.input_bytes(planned.network, whole.load(place / REFERENCE), target)
    (tmp_path / "run.in").write_bytes(given)
    ended = run(program(place, target, "libthreads.a"), target, ["run", str(tmp_path / "run.in")])
    assert (ended.returncode, ended.stdout) == (0, ""), ended


@pytest.mark.parametrize(("state", "status"), [("static", 1), ("", 0)])
def test_a_kernel_that_keeps_state_is_found(tmp_path: Path, state: str, status: int) -> None:
    """Every call reads what another one left there."""
    target = find_target("x86_64")
    planned = plan(read_model(write(tmp_path, gemm(m="2", n="3", k="2"))), target)
    (kernel,) = planned.kernels
    plain = tuple(msgspec.structs.replace(each, packing=None) for each in kernel.operands)
    kernel = msgspec.structs.replace(kernel, operands=plain)
    body = f"{state} int calls = 0; {GOOD} c[0] += calls++;"
    planned = msgspec.structs.replace(planned, kernels=(kernel,))
    linked(tmp_path, target, planned, body, check=CHECK)
    ended = run(program(tmp_path, target, "kernel.c"), target, ["g", "g.in"])
    assert ended.returncode == status, ended
