"""The bench and the search: real measurements of small kernels, and that wrong ones are refused."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kernels import check
from kernels.errors import CheckFailedError, InputError
from kernels.graph.planning import plan as make_plan
from kernels.manifest import Manifest
from kernels.models import read_model
from kernels.plan import Kernel
from kernels.program import Program
from kernels.tuning import read_records, signature_of
from tests.conftest import ROOT
from tests.emulation.conftest import need_counting
from tests.targets import at_first
from toolchains.bench import building, contest, emulated, results, running, sizes, tuning
from toolchains.bench.bars import BARS, Bar
from toolchains.bench.contest import OURS, WINOGRAD
from toolchains.bench.harness import Harness
from toolchains.bench.results import Bench
from toolchains.emulators import find_emulator
from toolchains.native import own_target
from toolchains.pipeline import Options, build, make
from toolchains.progress import Progress
from toolchains.target import Target, find_target

OWN = find_target(own_target())
QUIET = Progress(quiet=True)


def counted_target(bar: Bar) -> str:
    """Whose instructions it bounds; empty if it bounds something else."""
    what, _, target = bar.what.partition("instructions for each operation, ")
    return "" if what else target


COUNTED = [
    pytest.param(bar, id=name, marks=[] if name in ("aarch64", "riscv64-rvv") else pytest.mark.everything)
    for bar in BARS
    if (name := counted_target(bar))
]
"""Two in every run, the others with --everything."""
Schedule = dict[str, int | str]
PRODUCTS = """
name = "bench_small"
source = "test"

[[kernel]]
name = "product"
op = "gemm"
m = 50
n = 70
k = 90

[[kernel]]
name = "image"
op = "conv2d"
inputs = { x = [1, 9, 11, 16] }
attributes = { filters = 24, kernel = [3, 3], padding = [1, 1, 1, 1] }
fuse = ["bias", "relu"]
"""


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(PRODUCTS, encoding="utf-8")
    return path


@pytest.fixture
def program(listing: Path) -> Program:
    return read_model(listing)


def bench(listing: Path, options: Options, show: Callable[[object], None]) -> None:
    running.bench([OWN], str(listing), options, QUIET, seconds=0.02, size=False, show=show)


def test_a_listing_is_measured(listing: Path, options: Options, tmp_path: Path) -> None:
    shown: list[object] = []
    own = msgspec.structs.replace(options, out=tmp_path / "bench")
    running.bench([OWN], str(listing), own, QUIET, seconds=0.05, size=False, show=shown.append)
    found = results.read(tmp_path / "bench" / "bench.json")
    assert found.target == OWN.name
    (measured,) = found.sets.values()
    assert [row.kernel for row in measured.rows] == ["product", "image"]
    for row in measured.rows:
        assert 0 < row.share < 1.3
        assert row.seconds > 0
    assert shown


SQUARE = """
name = "bench_square"
source = "test"

[[kernel]]
name = "image"
op = "conv2d"
inputs = { x = [1, 32, 32, 64] }
attributes = { filters = 64, kernel = [3, 3], padding = [1, 1, 1, 1] }

[[kernel]]
name = "strided"
op = "conv2d"
inputs = { x = [1, 9, 9, 16] }
attributes = { filters = 24, kernel = [3, 3], stride = [2, 2] }
"""


def test_winograds_algorithm_takes_part_beside_the_direct_one(options: Options, tmp_path: Path) -> None:
    path = tmp_path / "square.toml"
    path.write_text(SQUARE, encoding="utf-8")
    own = msgspec.structs.replace(options, out=tmp_path / "bench", winograd=True)
    shown: list[object] = []
    running.bench([OWN], str(path), own, QUIET, seconds=0.02, size=False, show=shown.append)
    (measured,) = results.read(tmp_path / "bench" / "bench.json").sets.values()
    image, strided = measured.rows
    assert image.peers[WINOGRAD].share > 0
    assert WINOGRAD not in strided.peers
    assert WINOGRAD not in measured.ratio
    assert measured.winograd[OURS] == pytest.approx(image.peers[WINOGRAD].ratio ** -0.5)
    assert "m" not in image.schedule, "the row is the direct kernel's"


def test_a_build_is_timed_from_nothing_and_again(listing: Path, options: Options, tmp_path: Path) -> None:
    own = msgspec.structs.replace(options, out=tmp_path / "bench", build=ROOT / "build")
    taken = building.measure(OWN, own, QUIET, "2026-11-25", listing)
    assert taken.cold > 0
    assert taken.again > 0
    assert (taken.jobs, taken.engine) == (own.jobs, own.engine.name)


def test_a_residual_is_added_in_place(options: Options, tmp_path: Path) -> None:
    path = tmp_path / "added.toml"
    path.write_text(PRODUCTS.replace('"bias", "relu"', '"bias", "add", "relu"'), encoding="utf-8")
    program = read_model(path)
    assert not build(program, OWN, options, QUIET).report.failed()
    kernel = make_plan(program, OWN).kernels[1]
    library = ctypes.CDLL(str(options.build / OWN.name / program.name / f"lib{program.name}.so"))
    ours = contest.Ours(library, kernel, OURS)
    (way,) = ours.contestants(kernel, check.make_inputs(kernel, OWN))
    names = [operand.name for operand in kernel.operands]
    places = dict(zip(names, way.calls[0].integers, strict=False))
    assert places["residual"] == places["y"] == way.output.ctypes.data
    assert len({*places.values()}) == len(names) - 1
    measured = contest.measure(kernel, [ours], Harness(OWN, tmp_path), OWN, 0.01)
    assert not measured.refused
    assert measured.figures[OURS].error <= 1


def test_a_wrong_kernel_takes_no_part(
    program: Program, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose weights are packed otherwise than its plan says."""
    narrow = {
        signature_of(kernel): known(kernel.schedule | {"nr": 8, "mr": 2})
        for kernel in make_plan(program, OWN).kernels
    }
    other = make_plan(program, OWN, narrow)
    chosen = running.Set(title="wrong", model=Path("unused"))
    monkeypatch.setattr(running, "read_listing", lambda _: program)
    monkeypatch.setattr(running, "make", lambda plan, *rest: make(other, *rest))
    with pytest.raises(CheckFailedError, match="times our bound"):
        running.measure_set(chosen, OWN, options, QUIET, seconds=0.01, peers=())


def known(schedule: dict[str, int | str]) -> tuning.Known:
    record = tuning.Record(kernel="", schedule=schedule, gain=1.0, by="time", cpu="", date="")
    return tuning.Known(record=record, file="test.toml")


def test_a_search_leaves_records_that_a_build_takes(
    program: Program, options: Options, tmp_path: Path
) -> None:
    target = find_target("riscv64")
    need_counting(target)
    found: list[tuning.Found] = []
    folder = tmp_path / "records"
    path = tuning.tune(program, target, options, QUIET, folder, found.append)
    assert [each.kernel for each in found] == ["product", "image"]
    assert all(each.tried >= 10 for each in found)
    again: list[tuning.Found] = []
    tuning.tune(program, target, options, QUIET, folder, again.append)
    assert again == [], "what was searched is not searched again"
    recorded = {each.kernel for each in found if each.recorded}
    assert len(read_records(target.name, (folder,))) >= len(recorded)
    tuned = msgspec.structs.replace(options, records=(folder,))
    built = build(program, target, tuned, QUIET)
    assert not built.report.failed()
    sources = {kernel.name: kernel.schedule_source for kernel in built.manifest.kernels}
    assert {name for name, source in sources.items() if source == "tuned"} == recorded
    if recorded:
        assert path.is_file()
        plain = build(program, target, options, QUIET).report
        insns = {row.kernel: row.insns or 0 for row in plain.rows if row.cpu == target.qemu.cpus[0]}
        for row in built.report.rows:
            if row.kernel in recorded and row.cpu == target.qemu.cpus[0]:
                assert (row.insns or 0) < insns[row.kernel]


def test_a_build_names_the_record_that_it_used(program: Program, options: Options, tmp_path: Path) -> None:
    target = find_target("aarch64")
    kernel = make_plan(program, target).kernels[0]
    schedule = dict(kernel.schedule) | {"mr": 3, "nr": 8, "unroll": 1}
    record = tuning.Record(
        kernel=signature_of(kernel),
        schedule=schedule,
        gain=1.5,
        by="time",
        cpu="a board",
        date="2026-11-24",
    )
    (tmp_path / "aarch64.toml").write_text(
        tuning.text(tuning.RecordFile(target="aarch64", record=(record,))), encoding="utf-8"
    )
    built = build(
        program, target, msgspec.structs.replace(options, records=(tmp_path,)), Progress(quiet=True)
    )
    entry: Manifest = built.manifest
    assert entry.kernels[0].schedule == schedule
    assert (entry.kernels[0].schedule_source, entry.kernels[0].record) == ("tuned", "aarch64.toml")
    assert (entry.kernels[1].schedule_source, entry.kernels[1].record) == ("model", "")


@pytest.mark.parametrize(
    "text", ["nonsense", 'target = "armv7"', 'target = "aarch64"\n[[record]]\nkernel = 3\n']
)
def test_a_file_that_holds_no_records_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "aarch64.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"aarch64\.toml"):
        read_records("aarch64", (tmp_path,))


def test_the_picture_needs_no_display(listing: Path, options: Options, tmp_path: Path) -> None:
    own = msgspec.structs.replace(options, out=tmp_path / "bench")
    running.bench([OWN], str(listing), own, QUIET, seconds=0.01, size=False, show=lambda _: None)
    picture = (tmp_path / "bench" / f"{OWN.name}.svg").read_text(encoding="utf-8")
    assert "<svg" in picture


@pytest.mark.parametrize("bar", COUNTED)
def test_products_take_no_more_instructions_than_they_are_held_to(bar: Bar, options: Options) -> None:
    target = find_target(counted_target(bar))
    need_counting(target)
    figures = running.count_own(target, options, QUIET)
    assert figures.emulated == target.qemu.cpus[0]
    assert len(figures.insns) == 3
    found = bar.found(Bench(targets={target.name: figures}))
    assert found is not None
    assert bar.reaches(found, bar.bar), found


def test_a_peer_is_counted_under_qemu(program: Program) -> None:
    target = find_target("aarch64")
    need_counting(target)
    kernel = make_plan(program, target).kernels[0]
    library, root = emulated.unpacked(target, "blis", print)
    emulator = find_emulator(target.qemu)
    assert emulator is not None
    once = emulated._count(target, library, kernel, root, emulator)
    assert once == emulated._count(target, library, kernel, root, emulator), "the same in every run"
    assert once > kernel.flops / 8, "one instruction for each vector of multiply-adds at least"


def test_a_static_program_with_a_peer_is_linked_for_another_architecture() -> None:
    program = sizes.linked_with("blis", (64, 64, 64), find_target("aarch64"), print)
    assert program.total > program.libc + 100_000, "the library's kernels beside the C library"


ODD = """
name = "blocks"
source = "test"

[[kernel]]
name = "product"
op = "gemm"
m = 23
n = 37
k = 32
fuse = ["bias", "gelu"]

[[kernel]]
name = "deep"
op = "gemm"
m = 13
n = 19
k = 49
transpose = "tn"

[[kernel]]
name = "image"
op = "conv2d"
inputs = { x = [2, 9, 11, 24] }
attributes = { filters = 20, kernel = [3, 3], stride = [1, 2], padding = [1, 1, 1, 1], dilation = [2, 1] }
fuse = ["bias", "add", "relu"]

[[kernel]]
name = "groups"
op = "conv2d"
inputs = { x = [1, 7, 8, 32] }
attributes = { filters = 24, kernel = [3, 3], padding = [1, 0, 1, 0], groups = 2 }

[[kernel]]
name = "up"
op = "conv_transpose2d"
inputs = { x = [1, 5, 6, 24] }
attributes = { filters = 9, kernel = [3, 3], stride = [2, 2], padding = [1, 1, 1, 1] }
fuse = ["bias"]
"""


def forced(program: Program, target: Target, folder: Path, changes: Callable[[Kernel], Schedule]) -> None:
    """Write records by which the kernels of a program have other schedules than the model's."""
    records = tuple(
        tuning.Record(
            kernel=signature_of(kernel),
            schedule=kernel.schedule | changes(kernel),
            gain=1.0,
            by="time",
            cpu="",
            date="",
        )
        for kernel in make_plan(program, target).kernels
    )
    text = tuning.text(tuning.RecordFile(target=target.name, record=records))
    (folder / f"{target.name}.toml").write_text(text, encoding="utf-8")


SLIDING = """
name = "sliding"
source = "test"

[[kernel]]
name = "depthwise"
op = "depthwise_conv2d"
inputs = { x = [2, 9, 11, 21] }
attributes = { kernel = [3, 3], stride = [2, 1], padding = [1, 1, 1, 1] }
fuse = ["bias", "relu6"]

[[kernel]]
name = "largest"
op = "max_pool"
inputs = { x = [1, 10, 9, 35] }
attributes = { kernel = [3, 2], stride = [2, 2], padding = [1, 0, 1, 1] }
"""


@pytest.mark.parametrize("target", at_first("x86_64", "riscv64-rvv"))
@pytest.mark.parametrize("tile", [(1, 32), (3, 8)])
def test_windows_that_ask_ahead_are_right(
    target: Target, tile: tuple[int, int], options: Options, tmp_path: Path
) -> None:
    (tmp_path / "sliding.toml").write_text(SLIDING, encoding="utf-8")
    program = read_model(tmp_path / "sliding.toml")
    mr, nr = tile
    forced(program, target, tmp_path, lambda _: {"mr": mr, "nr": nr, "prefetch": 1})
    tuned = msgspec.structs.replace(options, records=(tmp_path,))
    report = build(program, target, tuned, QUIET).report
    assert {row.status for row in report.rows} == {"pass"}


@pytest.mark.parametrize("target", at_first("x86_64", "riscv64-rvv"))
@pytest.mark.parametrize("unroll", [1, 2])
def test_blocks_and_prefetching_leave_results_right(
    target: Target, unroll: int, options: Options, tmp_path: Path
) -> None:
    """Caches are too large for small kernels to need blocks, so that schedules are forced here."""
    (tmp_path / "blocks.toml").write_text(ODD, encoding="utf-8")
    program = read_model(tmp_path / "blocks.toml")
    blocks = {"unroll": unroll, "mc": 9, "prefetch_image": 1, "prefetch_panel": 2, "prefetch_result": 1}
    forced(program, target, tmp_path, lambda each: blocks | {"kc": 2 * max(4, int(each.schedule["ku"]))})
    report = build(
        program, target, msgspec.structs.replace(options, records=(tmp_path,)), Progress(quiet=True)
    ).report
    assert {row.status for row in report.rows} == {"pass"}
