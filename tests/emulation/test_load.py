"""Load: a worker does not grow with the number of its kernels; jobs fill the processors, and no more."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kernels.codegen.request import Request
from kernels.graph.planning import plan
from kernels.models import catalog, read_model
from tests.conftest import ROOT
from tests.faults import Project
from tests.unit.test_listing import gemm, write
from toolchains.engines.local import LocalEngine
from toolchains.machine import available_bytes, limits, processors
from toolchains.target import find_target

SCALING = 0.9
"""Of twice the rate of one job on one processor, what two jobs on two reach at least."""
GROWTH = 1.1
"""Of the resident bytes, from one fifth of the kernels to all."""


def resident(words: str) -> int:
    """Bytes of the one process whose command line has these words."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if words in (path / "cmdline").read_text(encoding="utf-8") and int(path.name) != os.getpid():
                return int((path / "statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
        except OSError:
            continue
    pytest.fail(f"no process of {words}")


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.everything)])
def test_the_memory_of_a_worker_is_steady(
    tmp_path: Path, count: int, record_property: pytest.RecordProperty
) -> None:
    body = "".join(
        gemm(name=f'"g{number}"', m=str(1 + number % 25), n=str(5 + number // 25), k="7")
        for number in range(count)
    )
    target = find_target("riscv64")
    planned = plan(read_model(write(tmp_path, body)), target)
    path = tmp_path / "codegen.json"
    path.write_bytes(
        msgspec.json.encode(Request(target=target, kernels=planned.kernels, driver=None, out="."))
    )
    held: list[int] = []
    engine = LocalEngine()
    engine.run("kernels.codegen", path, target, on_line=lambda line: held.append(resident(str(path))))
    assert len(held) == len(planned.kernels) == count
    early, late = held[count // 5 - 1], held[-1]
    record_property("resident MB, early and late", f"{early >> 20}, {late >> 20}")
    assert late < GROWTH * early


LOW = """
import resource
for limit, value in ((resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_FSIZE, 1 << 20)):
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
from toolchains.machine import limits
for each in limits():
    print(each.name, each.state, each.mend, sep="|")
"""


def test_limits_of_the_machine_are_told_with_what_mends_them() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
    assert available_bytes() > 1 << 20
    assert {each.state for each in limits()} <= {"here", "missing"}
    told = subprocess.run([sys.executable, "-c", LOW], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "open files|missing|ulimit -n 4096" in told.stdout
    assert "file size|missing|ulimit -f unlimited" in told.stdout


def spent(project: Project, jobs: int) -> tuple[float, float]:
    """Seconds of processors that a build of four targets took, from nothing, and left idle."""
    for folder in (project.build, project.out):
        shutil.rmtree(folder, ignore_errors=True)
    cores = sorted(os.sched_getaffinity(0))[:jobs]
    words = ["taskset", "--cpu-list", ",".join(map(str, cores))]
    words += [
        sys.executable,
        "-m",
        "invoke",
        "build",
        "--engine",
        "local",
        "--model",
        str(catalog()["blas"]),
    ]
    words += ["--arch", "riscv64-rvv,aarch64,s390x,i686", "--jobs", str(jobs)]
    before, waited = resource.getrusage(resource.RUSAGE_CHILDREN), idle(cores)
    status, said = project.run(words)
    assert status == 0, said
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, idle(cores) - waited


def idle(cores: list[int]) -> float:
    """Seconds that these processors had nothing to do since the machine began (proc(5), /proc/stat)."""
    rows = dict(
        line.split(maxsplit=1) for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()
    )
    ticks = sum(int(rows[f"cpu{core}"].split()[3]) for core in cores)
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.everything
def test_two_jobs_build_nearly_twice_as_fast_as_one(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """What others take of the processors is no loss: work is compared with what two jobs used or wasted."""
    assert processors() > 1, "two processors are needed"
    project, rates = Project(tmp_path / "project"), []
    for _ in range(3):
        alone, _idle = spent(project, 1)
        rates.append(alone / sum(spent(project, 2)))
    record_property("scaling", rates)
    assert statistics.median(rates) >= SCALING, rates
