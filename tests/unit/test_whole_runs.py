"""Judging runs of a whole network, and what its weights become as an object file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from kernels import whole
from kernels.errors import UsageError
from kernels.plan import NetworkPlan, Port
from kernels.program import ElementType
from kernels.whole import Reference
from tests.sketches import branching
from toolchains.objects import data_object
from toolchains.target import find_target
from toolchains.words import parse_bytes, parse_dims, parse_jobs, parse_seconds

TARGETS = [find_target("riscv64"), find_target("s390x")]


def network(dtype: ElementType = ElementType.FLOAT32) -> NetworkPlan:
    """Two outputs, of which the second may be of another type."""
    ports = (
        Port(name="a", identifier="a", shape=(2, 2), layout="rows"),
        Port(name="b", identifier="b", shape=(3,), layout="rows", dtype=dtype),
    )
    return NetworkPlan(
        inputs=(), outputs=ports, calls=(), arena_bytes=0, live_bytes=0, weights=(), weights_bytes=0
    )


def judged(found: list[Any], planned: NetworkPlan, target: Any, **tolerance: Any) -> whole.Verdict:
    """The verdict on `found`, where 1, 2, 3, 4 and 5, -6, NaN were due."""
    expected = {"a": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": np.array([5.0, -6.0, np.nan])}
    if planned.outputs[1].dtype is not ElementType.FLOAT32:
        expected["b"] = np.array([5, -6, 7])
    reference = Reference(source="test", inputs={}, outputs=expected, **tolerance)
    raw = [
        np.array(part, np.dtype(port.dtype.value).newbyteorder(target.byte_order)).tobytes()
        for part, port in zip(found, planned.outputs, strict=True)
    ]
    return whole.judge(planned, reference, b"".join(raw), target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_errors_are_measured_by_their_outputs_largest_magnitude(target: Any) -> None:
    a, b = [1.0, 2.0, 3.0, 4.0], [5.0, -6.0, np.nan]
    assert judged([a, b], network(), target).error == 0.0
    near = judged([[1.00039, 2.0, 3.0, 4.0], b], network(), target)
    assert near.passed
    assert near.bound == pytest.approx(4e-4)
    far = judged([[1.00041, 2.0, 3.0, 4.0], b], network(), target)
    assert not far.passed
    assert far.reason.startswith("a[0, 0]: expected 1, found 1.0004")
    assert judged([[1.0, 2.0, 3.0, 4.003], b], network(), target, relative=1e-3).passed


@pytest.mark.parametrize("b", [[5.0, -6.0, 0.0], [np.nan, -6.0, np.nan], [5.0, np.inf, np.nan]])
def test_nan_and_infinity_are_equal_to_themselves_alone(b: list[float]) -> None:
    verdict = judged([[1.0, 2.0, 3.0, 4.0], b], network(), TARGETS[0])
    assert not verdict.passed
    assert verdict.reason.startswith("b[")


def test_integers_are_exact() -> None:
    planned = network(ElementType.INT64)
    assert judged([[1.0, 2.0, 3.0, 4.0], [5, -6, 7]], planned, TARGETS[1]).passed
    assert not judged([[1.0, 2.0, 3.0, 4.0], [5, -6, 8]], planned, TARGETS[1]).passed


@pytest.mark.parametrize("looser", [{}, {"b": 0.5}])
def test_bytes_may_be_off_by_one_or_by_what_inputs_make_of_them(looser: dict[str, float]) -> None:
    planned = network(ElementType.INT8)
    assert judged([[1.0, 2.0, 3.0, 4.0], [5, -7, 8]], planned, TARGETS[1], looser=looser).passed
    off = judged([[1.0, 2.0, 3.0, 4.0], [5, -6, 10]], planned, TARGETS[1], looser=looser)
    assert off.passed == bool(looser)


def test_an_output_of_zeros_alone_may_be_a_tail_that_was_cut_off() -> None:
    plan = network()
    reference = Reference(source="test", inputs={}, outputs={"a": np.zeros((2, 2)), "b": np.ones(3)})
    for value, right in ((1e-9, True), (1e-6, False)):
        raw = np.array([value, 0, 0, 0, 1, 1, 1], "<f4").tobytes()
        assert whole.judge(plan, reference, raw, TARGETS[0]).passed == right


def test_an_output_of_the_wrong_size_is_wrong() -> None:
    reference = Reference(source="test", inputs={}, outputs={})
    verdict = whole.judge(network(), reference, bytes(27), TARGETS[0])
    assert (verdict.passed, verdict.reason) == (False, "27 bytes of output instead of 28")


def test_a_reference_is_kept_and_found_again(tmp_path: Path) -> None:
    reference = msgspec.structs.replace(whole.compose(branching()), relative=0.5)
    whole.save(reference, tmp_path / "kept.npz")
    again = whole.load(tmp_path / "kept.npz")
    assert whole.digest(again) == whole.digest(reference)
    assert (again.source, again.relative) == (reference.source, 0.5)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize(("bits", "order"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_data_becomes_an_object_of_any_class_and_byte_order(
    size: int, bits: int, order: int, tmp_path: Path
) -> None:
    like, data, made = tmp_path / "like.o", tmp_path / "data", tmp_path / "made.o"
    wide = bits == 2
    word = "little" if order == 1 else "big"
    header = bytearray(64 if wide else 52)
    header[:7] = b"\x7fELF" + bytes([bits, order, 1])
    header[18:20] = (243).to_bytes(2, word)
    flags = 48 if wide else 36
    header[flags : flags + 4] = (5).to_bytes(4, word)
    header[flags + 4 : flags + 6] = len(header).to_bytes(2, word)
    like.write_bytes(bytes(header))
    contents = bytes(range(256)) * 4
    data.write_bytes(contents[:size])
    data_object(data, "lib_weights", like, made, hidden=True)
    with made.open("rb") as stream:
        elf = ELFFile(stream)
        assert (elf.elfclass, elf.little_endian) == (64 if wide else 32, order == 1)
        assert (elf["e_machine"], elf["e_flags"], elf["e_type"]) == ("EM_RISCV", 5, "ET_REL")
        section = elf.get_section_by_name(".rodata")
        assert section.data() == contents[:size]
        assert section["sh_addralign"] == 64
        (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("lib_weights")
        assert (symbol["st_size"], symbol["st_other"]["visibility"]) == (size, "STV_HIDDEN")
        assert elf.get_section(symbol["st_shndx"]).name == ".rodata"
        assert elf.get_section_by_name(".note.GNU-stack")["sh_flags"] == 0


@pytest.mark.parametrize(
    ("word", "size"), [("262144", 262144), ("256K", 262144), ("1m", 1 << 20), ("2GiB", 1 << 31)]
)
def test_sizes_are_read(word: str, size: int) -> None:
    assert parse_bytes("--max-arena", word) == size


@pytest.mark.parametrize("word", ["", "K", "-1", "1T", "1.5M"])
def test_what_is_no_size_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="give a number of bytes"):
        parse_bytes("--max-arena", word)


def test_counts_and_times_are_read() -> None:
    assert parse_jobs("16") == 16
    assert (parse_seconds("--seconds", "2"), parse_seconds("--seconds", "0.5")) == (2.0, 0.5)
    for word in ("many", "0", "-3", "1.5", "٣", ""):
        with pytest.raises(UsageError, match="give a positive number"):
            parse_jobs(word)
    for word in ("long", "0", "-1", "nan", "inf", "1e3", ".5", ""):
        with pytest.raises(UsageError, match="give seconds"):
            parse_seconds("--seconds", word)


def test_dimensions_are_read() -> None:
    assert parse_dims(["batch=1", "seq=128", "x=y=-3"]) == {"batch": 1, "seq": 128, "x=y": -3}
    for word in ("batch", "batch=", "=1", "batch=1.5", "batch=x", "batch=--1"):
        with pytest.raises(UsageError, match="give a dimension's name and size"):
            parse_dims([word])
