"""Whole networks as libraries: built, run under QEMU, linked by a C developer."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
import pytest
from elftools.elf.elffile import ELFFile
from onnx import helper, numpy_helper

from kernels import whole
from kernels.codegen.driver import CALLS_PER_PART
from kernels.errors import InputError
from kernels.graph.network import plan_network
from kernels.graph.weights import packed_weights
from kernels.models.oracle import Oracle, oracle_for
from kernels.plan import WeightsMode
from kernels.program import Network
from kernels.whole import Reference
from tests.emulation.test_build import invoke, left_over
from tests.emulation.test_package import STRICT, TARGET, flags
from tests.sketches import Sketch, branching
from tests.targets import FEW_AT_FIRST, linking_compiler
from tests.unit.test_proportion import chain
from toolchains import checking
from toolchains.checking import NOT_SAMPLED
from toolchains.emulators import find_emulator
from toolchains.link import zig_environment
from toolchains.making import VERSION, Options
from toolchains.pipeline import Built, bring, build, check_again
from toolchains.progress import Progress
from toolchains.report import Row
from toolchains.target import Target, find_target

HOST = find_target("x86_64")
QUIET = Progress(quiet=True)
TWICE = {"a": [4, 6], "b": [4, 6]}


def runs(built: Built) -> list[Row]:
    """The rows of the whole network; those of an old QEMU say why they were skipped."""
    rows = [row for row in built.report.rows if row.kernel == "run"]
    assert len(rows) == len(find_target(built.target).checked_on)
    for row in rows:
        assert row.status == "pass" or "older than" in row.reason or "processor lacks" in row.reason, row
    return rows


def symbols(path: Path) -> tuple[set[str], set[str]]:
    """What a shared object exports, and what it leaves undefined."""
    with path.open("rb") as stream:
        table = [s for s in ELFFile(stream).get_section_by_name(".dynsym").iter_symbols() if s.name]
    exported = {s.name for s in table if s["st_shndx"] != "SHN_UNDEF"}
    undefined = {s.name for s in table if s["st_shndx"] == "SHN_UNDEF"}
    return exported, undefined - {"_GLOBAL_OFFSET_TABLE_", ".TOC."}


@pytest.mark.parametrize("target", FEW_AT_FIRST)
def test_a_network_runs_whole_and_in_parts_on_every_target(target: Target, options: Options) -> None:
    built = build(branching(), target, options, QUIET)
    assert not built.report.failed()
    assert not built.report.broken()
    assert built.report.reference == whole.COMPOSED
    assert {row.kernel for row in built.report.rows} == {k.name for k in built.manifest.kernels} | {"run"}
    for row in runs(built):
        assert row.status == "skipped" or row.insns_reason or (row.insns or 0) > 10_000
    folder = options.build / target.name / "branching"
    exported, undefined = symbols(folder / "libbranching.so")
    assert exported == {kernel.symbol for kernel in built.manifest.kernels} | {"branching_run"}
    assert undefined <= {"memcpy", "memset", "memmove"}
    network = built.manifest.network
    assert network is not None
    assert len(network.calls) == sum(kernel.count for kernel in built.manifest.kernels) == 8
    assert len(built.manifest.kernels) == 7
    assert network.arena_bytes <= 1.1 * network.live_bytes


@pytest.mark.parametrize("name", ["armv7", "s390x", "x86_64"])
def test_a_long_run_is_divided_and_nothing_of_that_is_seen(name: str, options: Options) -> None:
    s = Sketch("long")
    shape = {"a": [3, 5], "b": [3, 5]}
    total, step = s.input("x", 3, 5), s.constant("step", 3, 5)
    for number in range(2 * CALLS_PER_PART + 3):
        kind = "sub" if number % 3 else "add"
        total = s.operator(f"n{number}", kind, {"a": total, "b": step}, inputs=shape)
    built = build(s.network(y=total), find_target(name), options, QUIET)
    assert [row.status for row in runs(built)] == ["pass"] * len(runs(built))
    assert not built.report.broken()
    assert built.manifest.network is not None
    assert len(built.manifest.network.calls) == 2 * CALLS_PER_PART + 3
    exported, _ = symbols(options.build / name / "long" / "liblong.so")
    assert exported == {kernel.symbol for kernel in built.manifest.kernels} | {"long_run"}


def test_a_sample_runs_a_large_network_whole_on_the_first_processor(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "SAMPLED_FLOPS", 0)
    few = msgspec.structs.replace(options, checks="sample")
    first, *others = [
        row
        for row in build(branching("large"), find_target("aarch64"), few, QUIET).report.rows
        if row.kernel == "run"
    ]
    assert first.status == "pass"
    assert [row.reason for row in others] == [NOT_SAMPLED]


@pytest.mark.everything
def test_a_network_of_200000_nodes_is_built_and_right(options: Options, tmp_path: Path) -> None:
    path = chain(200_000, ("Softmax", "Relu"), tmp_path)
    network = bring(path, {})
    assert isinstance(network, Network)
    built = build(network, HOST, options, QUIET, oracle_for(path))
    assert [row.status for row in runs(built)] == ["pass"]
    assert not built.report.broken()
    assert built.report.reference.startswith("onnxruntime")


@pytest.mark.parametrize("name", ["i686", "s390x"])
@pytest.mark.parametrize("mode", ["file", "symbol"])
def test_weights_may_be_beside_the_library(name: str, mode: WeightsMode, options: Options) -> None:
    target, network = find_target(name), branching(f"beside_{mode}")
    built = build(network, target, msgspec.structs.replace(options, weights=mode), QUIET)
    assert runs(built)[0].status == "pass"
    assert not built.report.broken()
    plan = plan_network(network, target, weights_mode=mode)
    weights = b"".join(packed_weights(plan, network, target.byte_order))
    with tarfile.open(built.archive) as archive:
        prefix = built.archive.name.removesuffix(".tar.gz")
        kept = archive.extractfile(f"{prefix}/beside_{mode}.weights")
        assert kept is not None
        assert kept.read() == weights
        header = archive.extractfile(f"{prefix}/beside_{mode}.h")
        assert header is not None
        text = header.read().decode()
    upper = f"BESIDE_{mode.upper()}"
    assert f"#define {upper}_WEIGHTS_BYTES {len(weights)}" in text
    _, undefined = symbols(options.build / name / f"beside_{mode}" / f"libbeside_{mode}.so")
    extra = {f"beside_{mode}_weights"} if mode == "symbol" else set()
    assert extra <= undefined <= extra | {"memcpy", "memset", "memmove"}


class Fixed(Oracle):
    """Answers what it was told."""

    def __init__(self, reference: Reference, identity: str) -> None:
        self.reference, self.identity = reference, identity

    def ask(self, network: Network) -> Reference:
        return self.reference


def test_a_network_that_differs_from_its_reference_is_not_archived(
    options: Options, tmp_path: Path
) -> None:
    network = branching("differs")
    right = whole.compose(network)
    outputs = {**right.outputs, "out/sum": right.outputs["out/sum"] + np.eye(1, 10, 3)}
    wrong = Reference(source="somebody", inputs=right.inputs, outputs=outputs)
    out = msgspec.structs.replace(options, out=tmp_path)
    built = build(network, find_target("riscv64"), out, QUIET, Fixed(wrong, "wrong"))
    (row,) = built.report.failed()
    assert (row.kernel, row.status) == ("run", "wrong")
    assert row.reason.startswith("out/sum[0, 3]: expected")
    assert "1 of 10 elements are wrong" in row.reason
    assert built.report.reference == "somebody"
    assert [path.name for path in tmp_path.iterdir()] == [f"differs-{VERSION}-riscv64.report.json"]
    mended = build(network, find_target("riscv64"), out, QUIET, Fixed(right, "right"))
    assert not mended.report.failed()
    assert not mended.cached
    again = build(network, find_target("riscv64"), out, QUIET, Fixed(right, "right"))
    assert again.cached
    assert again.sha256 == mended.sha256
    report = check_again(network, find_target("riscv64"), out, QUIET)
    assert [row.status for row in report.rows] == ["pass"] * 8


def test_other_weights_are_another_build_and_the_same_ones_the_same_bytes(
    options: Options, tmp_path: Path
) -> None:
    network = branching("again")
    first = build(network, find_target("s390x"), options, QUIET)
    elsewhere = msgspec.structs.replace(options, out=tmp_path / "out", build=tmp_path / "build")
    assert build(network, find_target("s390x"), elsewhere, QUIET).sha256 == first.sha256
    constants = dict(network.constants)
    constants["dense.bias"] = constants["dense.bias"] + 1
    changed = build(
        Network(program=network.program, constants=constants), find_target("s390x"), elsewhere, QUIET
    )
    assert not changed.cached
    assert changed.sha256 != first.sha256


def test_an_arena_over_the_limit_leaves_nothing(options: Options, tmp_path: Path) -> None:
    limited = msgspec.structs.replace(
        options, out=tmp_path / "out", build=tmp_path / "build", max_arena=10_000
    )
    with pytest.raises(InputError, match="over the limit of 10000"):
        build(branching("limited"), find_target("riscv64"), limited, QUIET)
    assert not list(tmp_path.rglob("*"))


def emulate(program: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    emulator = find_emulator(HOST.qemu)
    assert emulator is not None
    command = [str(emulator.path), "-cpu", HOST.qemu.cpus[0], str(program), *words]
    return subprocess.run(command, check=False, capture_output=True, cwd=program.parent)


def compiled(source: Path, folders: list[Path], language: Literal["c", "c++"] = "c") -> Path:
    """A program of that source and the libraries that lie in the folders."""
    program = source.with_suffix("")
    words = ["-std=c99"] if language == "c" else []
    linked = [flag for folder in folders for flag in flags(folder)]
    subprocess.run(
        [
            *linking_compiler(TARGET, language),
            *STRICT,
            *words,
            "-x",
            language,
            str(source),
            "-x",
            "none",
            *linked,
            "-o",
            str(program),
        ],
        check=True,
        env=zig_environment(),
    )
    return program


def unpacked(network: Network, options: Options, folder: Path) -> Path:
    built = build(network, HOST, options, QUIET)
    subprocess.run(["tar", "xf", str(built.archive), "-C", str(folder)], check=True)
    return folder / built.archive.name.removesuffix(".tar.gz")


@pytest.mark.parametrize(("mode", "language"), [("embed", "c"), ("file", "c++")])
def test_the_example_runs_the_network_on_a_file(
    mode: WeightsMode, language: Literal["c", "c++"], options: Options, tmp_path: Path
) -> None:
    network = branching(f"example_{mode}")
    folder = unpacked(network, msgspec.structs.replace(options, weights=mode), tmp_path)
    program = compiled(folder / "example.c", [folder], language)
    expected = whole.compose(network)
    plan = plan_network(network, HOST)
    assert plan.network is not None
    (folder / "in").write_bytes(whole.input_bytes(plan.network, expected, HOST))
    words = ["in", "out", *([f"example_{mode}.weights"] if mode == "file" else [])]
    done = emulate(program, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    verdict = whole.judge(plan.network, expected, (folder / "out").read_bytes(), HOST)
    assert verdict.passed, verdict
    assert emulate(program).returncode == 2
    assert emulate(program, "none", *words[1:]).returncode == 3


def onnx_file(path: Path) -> Path:
    """A convolution and a product of random weights, with an open batch."""
    random = np.random.default_rng(3)
    constants = {
        "w": random.uniform(-0.3, 0.3, (6, 3, 3, 3)),
        "b": random.uniform(-1, 1, 6),
        "fc": random.uniform(-0.1, 0.1, (384, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["scores"]),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", floats, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", floats, ["batch", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_the_command_line_brings_a_model(tmp_path: Path) -> None:
    model = onnx_file(tmp_path / f"m{os.getpid()}.onnx")
    out = tmp_path / "out"
    words = ["--arch", "s390x", "--engine", "local", "--model", str(model), "--dim", "batch=2"]
    build_words = ["build", *words, "--out", str(out), "--weights", "file"]
    refused = invoke(*build_words, "--max-arena", "1K")
    assert refused.returncode == 3
    assert "over the limit of 1024" in refused.stderr
    assert left_over(out) == []
    done = invoke(*build_words, "--max-arena", "64K")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 passed" in done.stdout
    (report,) = out.glob("*.report.json")
    assert json.loads(report.read_text())["reference"].startswith("onnxruntime 1.")
    again = invoke(*build_words, "--max-arena", "64K")
    assert "cached" in again.stdout
    checked = invoke("check", *words)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(" pass ") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "fil"), "say embed, file or symbol"),
        (("--max-arena", "many"), "give a number of bytes"),
        (("--dim", "batch"), "give a dimension's name and size"),
    ],
)
def test_wrong_words_about_a_network_are_named(words: tuple[str, str], message: str) -> None:
    done = invoke("build", "--arch", "riscv64", "--engine", "local", *words)
    assert done.returncode == 2
    assert message in done.stderr


TWO = """
#include <stdio.h>
#include <string.h>
#include "left.h"
#include "right.h"

static float image[405], extra[11], likely[2][10], total[2][10];
static unsigned char memory[LEFT_ARENA_BYTES + 128];

#define REFUSED(call) \\
    if ((call) != -1 || likely[0][0] != 7.0f || total[0][0] != 7.0f) { \\
        printf("not refused: %s\\n", #call); \\
        return 1; \\
    }

int main(void)
{
    void *arena = memory + (64 - (uintptr_t)memory % 64) % 64;
    left_inputs in = {image, extra};
    left_outputs out = {likely[0], total[0]};
    right_inputs other_in = {image, extra};
    right_outputs other_out = {likely[1], total[1]};
    int i;

    for (i = 0; i < 405; i++)
        image[i] = (float)(i % 7) * 0.25f - 0.5f;
    likely[0][0] = total[0][0] = 7.0f;
    REFUSED(left_run(NULL, &out, NULL, arena));
    REFUSED(left_run(&in, NULL, NULL, arena));
    REFUSED(left_run(&in, &out, NULL, NULL));
    REFUSED(left_run(&in, &out, NULL, (char *)arena + 32));
    in.extra = NULL;
    REFUSED(left_run(&in, &out, NULL, arena));
    in.extra = (const float *)((const char *)extra + 2);
    REFUSED(left_run(&in, &out, NULL, arena));
    in.extra = extra + 1;
    out.out_sum = NULL;
    REFUSED(left_run(&in, &out, NULL, arena));
    out.out_sum = (float *)((char *)total[0] + 1);
    REFUSED(left_run(&in, &out, NULL, arena));
    out.out_sum = total[0];
    if (left_run(&in, &out, NULL, arena) || right_run(&other_in, &other_out, NULL, arena))
        return 2;
    if (memcmp(likely[0], likely[1], sizeof likely[0]) || memcmp(total[0], total[1], sizeof total[0]))
        return 3;
    printf("%s %d\\n", LEFT_WEIGHTS_SHA256, LEFT_WEIGHTS_BYTES);
    return 0;
}
"""


def test_two_libraries_link_into_one_program_and_refuse_bad_pointers(
    options: Options, tmp_path: Path
) -> None:
    folders = [unpacked(branching(name), options, tmp_path) for name in ("left", "right")]
    source = tmp_path / "two.c"
    source.write_text(TWO, encoding="utf-8")
    done = emulate(compiled(source, folders))
    assert done.returncode == 0, done.stdout
    assert done.stdout.split()[1] == b"16552"


def test_constants_may_be_any_operand_and_an_input_an_output(options: Options) -> None:
    s = Sketch("constants")
    x = s.input("x", 4, 6)
    less = s.operator("less", "sub", {"a": s.constant("one", 4, 6), "b": x}, inputs=TWICE)
    part = s.operator("part", "div", {"a": s.constant("row", 6), "b": less}, inputs={"a": [6], "b": [4, 6]})
    pair = s.operator("pair", "concat", {"x0": s.constant("k", 4, 6), "x1": part}, inputs=[[4, 6], [4, 6]])
    network = s.network(y=pair, copy=s.reshape("copy", x, 24), fixed=s.reshape("fixed", "row", 2, 3))
    for name in ("x86_64-avx512", "s390x"):
        built = build(network, find_target(name), options, QUIET)
        assert not built.report.failed(), [row.reason for row in built.report.failed()]
        assert runs(built)
