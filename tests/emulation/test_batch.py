"""Many builds at once: what fails fails alone, memory is shared out, finished work is not repeated."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import msgspec
import pytest

from kernels.errors import UsageError
from kernels.graph.planning import plan
from kernels.models import catalog, read_model
from kernels.plan import Kernel
from tests.unit.test_listing import conv, gemm, write
from toolchains.batch import Job, Memory, Room, build_all
from toolchains.checking import BLOCKS, NOT_SAMPLED, sample
from toolchains.engines.local import LocalEngine
from toolchains.machine import available_bytes
from toolchains.pipeline import Options
from toolchains.progress import Progress
from toolchains.share import told
from toolchains.target import Target, find_target


class Counting(LocalEngine):
    """A local engine that remembers which steps it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str]] = []

    def run(self, module: str, request: Path, target: Target, **others: object) -> int | None:
        self.steps.append((module, target.name))
        return super().run(module, request, target, **others)  # type: ignore[arg-type]


@pytest.fixture
def counting(options: Options, tmp_path: Path) -> Options:
    engine = Counting()
    return msgspec.structs.replace(options, engine=engine, out=tmp_path / "out", build=tmp_path / "build")


LISTING = gemm(m="9", n="40", k="11") + conv("filters = 4, kernel = [3, 3]")


def test_what_fails_fails_alone(counting: Options, tmp_path: Path) -> None:
    good = find_target("aarch64")
    bad = msgspec.structs.replace(
        find_target("armv7"), c=msgspec.structs.replace(find_target("armv7").c, zig="arm-pdp11-musl")
    )
    program = read_model(write(tmp_path, LISTING))
    built, failures = build_all([program], [bad, good], counting, Progress())
    assert [each.target for each in built] == ["aarch64"]
    assert built[0].archive.is_file()
    (failure,) = failures
    assert failure.name == "t for armv7"
    assert failure.error.status == 7
    assert "pdp11" in str(failure.error)


def test_two_models_of_one_name_are_refused(counting: Options, tmp_path: Path) -> None:
    program = read_model(write(tmp_path, LISTING))
    with pytest.raises(UsageError, match="two models are named 't'"):
        build_all([program, program], [find_target("aarch64")], counting, Progress())


def test_finished_work_is_not_repeated(counting: Options, tmp_path: Path) -> None:
    assert isinstance(counting.engine, Counting)
    program, targets = read_model(write(tmp_path, LISTING)), [find_target("aarch64"), find_target("s390x")]
    first, _ = build_all([program], targets, counting, Progress())
    counting.engine.steps.clear()
    again, _ = build_all([program], targets, counting, Progress())
    assert counting.engine.steps == []
    assert [each.sha256 for each in again] == [each.sha256 for each in first]
    for each in first:
        each.archive.unlink()  # as if the build had been interrupted before its end
    mended, _ = build_all([program], targets, counting, Progress())
    assert {module for module, _ in counting.engine.steps} == {"toolchains.link"}
    assert [each.sha256 for each in mended] == [each.sha256 for each in first]
    assert [each.report.rows for each in mended] == [each.report.rows for each in first]


def test_a_sample_is_the_smallest_of_those_alike(
    counting: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(counting.engine, Counting)
    sizes = (("big", "128"), ("small", "96"))
    body = "".join(gemm(name=f'"{name}"', m="8", n=size, k="8") for name, size in sizes)
    program, target = read_model(write(tmp_path, body)), find_target("aarch64")
    few, _ = build_all([program], [target], msgspec.structs.replace(counting, checks="sample"), Progress())
    cpus = len(target.checked_on)
    last = re.findall(r"checking (\d+)/(\d+)", capsys.readouterr().err)[-1]
    assert last == (str(2 * cpus), str(2 * cpus)), "the bar does not end at its end"
    assert [(row.kernel, row.status) for row in few[0].report.rows] == cpus * [
        ("big", "skipped"),
        ("small", "pass"),
    ]
    assert {row.reason for row in few[0].report.skipped()} == {NOT_SAMPLED}
    counting.engine.steps.clear()
    whole, _ = build_all([program], [target], counting, Progress())
    assert not whole[0].report.skipped()
    assert not whole[0].cached
    assert ("kernels.codegen", "aarch64") not in counting.engine.steps


def without_sizes(kernel: Kernel) -> dict[str, int | str]:
    return {name: value for name, value in kernel.schedule.items() if name not in BLOCKS}


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "bert_base"])
def test_a_sample_has_every_operator_and_schedule(name: str) -> None:
    kernels = plan(read_model(catalog()[name]), find_target("riscv64-rvv")).kernels
    chosen = sample(plan(read_model(catalog()[name]), find_target("riscv64-rvv")))
    assert chosen < {kernel.name for kernel in kernels}
    for kernel in kernels:
        alike = [other for other in kernels if other.name in chosen and other.kind == kernel.kind]
        assert any(without_sizes(other) == without_sizes(kernel) for other in alike)


def test_memory_is_shared_out() -> None:
    memory = Memory(100)
    most, now = 0, 0
    lock = threading.Lock()

    def take(size: int) -> None:
        nonlocal most, now
        with memory.taken(size):
            with lock:
                now += size
                most = max(most, now)
            threading.Event().wait(0.02)
            with lock:
                now -= size

    threads = [threading.Thread(target=take, args=(size,)) for size in (60, 60, 30, 30, 30, 40, 60, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert 60 < most <= 100
    with memory.taken(1000):  # alone, it may
        pass
    assert available_bytes() > 1 << 20


def test_processors_that_others_leave_go_to_what_still_runs(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, LISTING))
    jobs = [
        Job(model=model, target=find_target(name), work=1, bytes=10) for name in ("armv7", "s390x", "i686")
    ]
    room = Room(Memory(100), 2, len(jobs))
    with room.taken(jobs[0]) as long:
        with room.taken(jobs[1]):
            assert long.count == 1
        assert long.count == 1, "the third is still to come"
        with long.told_in(tmp_path / "jobs"), room.taken(jobs[2]) as last:
            assert (told(tmp_path / "jobs"), last.count) == (1, 1)
        with long.told_in(tmp_path / "jobs"):
            assert (told(tmp_path / "jobs"), long.count) == (2, 2)


def test_processors_go_no_further_than_memory(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, LISTING))
    large, small = (
        Job(model=model, target=find_target(name), work=1, bytes=size)
        for name, size in (("armv7", 60), ("s390x", 30))
    )
    room = Room(Memory(100), 2, 2)
    with room.taken(large) as share, room.taken(small):
        pass
    with Room(Memory(100), 2, 1).taken(small) as alone:
        assert alone.count == 2
    assert share.count == 1
