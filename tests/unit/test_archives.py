"""Archives depend on their members alone; those of others are opened with distrust; an SBOM tells all."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.errors import InputError
from toolchains.archive import BLOCK_BYTES, SUMS, Stored, file_sha256, make_archive, read_sums, write_sums
from toolchains.sbom import SCHEMA, Recipe, read_sbom, write_sbom
from toolchains.source import Source
from toolchains.target import find_target
from toolchains.unpacking import unpack

GOLDEN = "12addb848a1879937e4fe43f39ec9c24432ba2b90219915a90f6607479b03464"
RECIPE = Recipe(
    source=Source(commit="c0ffee", epoch=1_000_000_000),
    library="small",
    version="0.1.0",
    target="riscv64",
    model="models/small.onnx",
    files={"models/small.onnx": "ab" * 32},
    dims={"batch": 2},
    weights="file",
    versions={"apache-tvm": "1", "llvm": "22"},
)


@pytest.fixture
def members(tmp_path: Path) -> dict[str, Path]:
    """Two files, one of which is longer than a block."""
    files = {"b.o": np.random.default_rng(7).bytes(BLOCK_BYTES + 10), "a.h": b"int f(void);\n"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in files}


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300).map(lambda data: data * 700)))
def test_what_is_stored_is_what_any_reader_finds(pieces: list[bytes]) -> None:
    out = io.BytesIO()
    with Stored(out) as stored:
        for piece in pieces:
            stored.write(piece)
    whole = b"".join(pieces)
    assert gzip.decompress(out.getvalue()) == whole
    assert zlib.decompress(out.getvalue(), wbits=31) == whole
    other = io.BytesIO()
    with Stored(other) as stored:
        stored.write(whole)
    assert other.getvalue() == out.getvalue(), "how it was written shows"
    assert stored.sha256.hexdigest() == hashlib.sha256(out.getvalue()).hexdigest()


class Full(io.BytesIO):
    """A disk that takes the head alone."""

    def write(self, data: Any) -> int:
        if self.tell() > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_stream_that_cannot_be_ended_is_closed_all_the_same() -> None:
    """Python 3.13 tells what fails when it is closed again, as it is forgotten."""
    stored = Stored(Full())
    with pytest.raises(OSError, match="No space left"):
        stored.close()
    assert stored.closed
    stored.close()


def test_an_archive_is_the_same_bytes_on_every_machine(members: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    sha256 = make_archive(path, "p", members, 7)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN
    for each in members.values():
        each.chmod(0o600)
        os.utime(each, (5, 5))
    assert make_archive(path, "p", dict(reversed(members.items())), 7) == GOLDEN
    with tarfile.open(path) as archive:
        told = {(e.name, e.uid, e.gid, e.uname, e.gname, e.mode, e.mtime) for e in archive}
    assert told == {(f"p/{name}", 0, 0, "", "", 0o644, 7) for name in members}


def test_what_was_packed_is_unpacked(members: dict[str, Path], tmp_path: Path) -> None:
    make_archive(tmp_path / "p.tar.gz", "p", members, 7)
    (tmp_path / "out").mkdir()
    contents = unpack(tmp_path / "p.tar.gz", tmp_path / "out")
    assert contents.epoch == 7
    assert {n: p.read_bytes() for n, p in contents.members.items()} == {
        n: p.read_bytes() for n, p in members.items()
    }


def entry(name: str, kind: bytes = tarfile.REGTYPE, to: str = "", mtime: int = 7) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mtime = kind, to, mtime
    return made


def pax(name: str, headers: dict[str, str]) -> tarfile.TarInfo:
    made = entry(name)
    made.pax_headers = headers
    return made


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("p/../../etc/x")], r"'p/../../etc/x' is not in the archive's folder 'p'"),
        ([entry("/p/x")], "is not in the archive's folder"),
        ([entry("q/x")], "is not in the archive's folder"),
        ([entry("p/..")], "is not in the archive's folder"),
        ([entry("p/a/b")], "is not in the archive's folder"),
        ([entry("p/.profile")], "is not in the archive's folder"),
        ([entry("p/x", tarfile.SYMTYPE, "/etc/passwd")], "'p/x' is a symbolic link to '/etc/passwd'"),
        ([entry("p/x", tarfile.LNKTYPE, "../x")], "is a hard link"),
        ([entry("p", tarfile.DIRTYPE)], "is a folder"),
        ([entry("p/x", tarfile.CHRTYPE)], "is no file"),
        ([entry("p/x", tarfile.GNUTYPE_SPARSE)], "is sparse"),
        ([pax("p/x", {"GNU.sparse.map": "0,0", "GNU.sparse.size": "1000000000000"})], "is no file"),
        ([pax("p/x", {"mtime": "inf"})], "no archive, or a damaged one"),
        ([pax("p/x", {"size": "1000000000000"})], "no archive, or a damaged one"),
        ([entry("p/x"), entry("p/x")], "comes twice"),
        ([entry("p/x"), entry("p/y", mtime=8)], "differ in their time"),
        ([], "empty"),
    ],
)
def test_a_member_that_could_do_harm_is_refused_by_name(
    entries: list[tarfile.TarInfo], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (
        (tmp_path / "p.tar.gz").open("wb") as raw,
        Stored(raw) as stored,
        tarfile.open(fileobj=stored, mode="w|") as archive,  # type: ignore[call-overload]
    ):
        for each in entries:
            archive.addfile(each)
    with pytest.raises(InputError, match=message):
        unpack(tmp_path / "p.tar.gz", out)
    assert {path.name for path in tmp_path.rglob("*")} <= {"out", "p.tar.gz", "x", "y"}


def bomb(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:512] + bytes(50 << 20))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes((data[middle] ^ 1,)) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:3], "truncated"),
        (lambda _: b"", "truncated|no archive|empty"),
        (lambda _: b"no archive at all", "no archive"),
        (flipped, "damaged"),
        (lambda data: data + b"more", "damaged"),
        (bomb, "expands to more than its own size"),
    ],
)
def test_a_damaged_archive_is_refused(
    damage: Callable[[bytes], bytes], message: str, members: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "p.tar.gz"
    make_archive(path, "p", members, 7)
    path.write_bytes(damage(path.read_bytes()))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=message):
        unpack(path, tmp_path / "out")


@settings(deadline=None)
@given(st.data())
def test_whatever_the_bytes_are_there_is_an_answer(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "m").write_bytes(b"m" * 100)
        make_archive(place / "p.tar.gz", "p", {"m": place / "m"}, 7)
        raw = bytearray((place / "p.tar.gz").read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        (place / "p.tar.gz").write_bytes(bytes(raw)[: data.draw(st.integers(0, len(raw)))])
        (place / "out").mkdir()
        with contextlib.suppress(InputError):
            assert set(unpack(place / "p.tar.gz", place / "out").members) == {"m"}


def test_an_sbom_fits_the_standard_and_says_what_it_was_told() -> None:
    sums = {"libsmall.a": "cd" * 32, "small.h": "ef" * 32}
    target = find_target("riscv64")
    text = write_sbom(RECIPE, target, sums)
    assert JsonStrictValidator(SCHEMA).validate_str(text.decode()) is None
    assert read_sbom(text) == (RECIPE, sums)
    assert text == write_sbom(RECIPE, target, dict(reversed(sums.items())))
    told = json.loads(text)
    assert told["metadata"]["timestamp"] == "2001-09-09T01:46:40+00:00"
    parts = {each["name"]: each for each in told["formulation"][0]["components"]}
    assert parts["models/small.onnx"]["type"] == "machine-learning-model"
    assert parts["models/small.onnx"]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert {"kernfit", "apache-tvm", "llvm"} <= parts.keys()
    steps = told["formulation"][0]["workflows"][0]["steps"]
    words = "invoke release --arch riscv64 --model models/small.onnx --weights file --dim batch=2"
    assert steps[0]["commands"][0]["executed"] == words


def test_the_serial_number_of_an_sbom_is_that_of_its_content() -> None:
    target = find_target("riscv64")
    numbers = [
        json.loads(write_sbom(RECIPE, target, {"small.h": sha256 * 32}))["serialNumber"]
        for sha256 in ("ab", "ab", "cd")
    ]
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize("text", [b"", b"{}", b'{"components": [], "formulation": []}', b"\xff"])
def test_another_sbom_is_refused(text: bytes) -> None:
    with pytest.raises(InputError, match="not one that `invoke release` wrote"):
        read_sbom(text)


def test_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    names = ["b", "a name", "ü/c"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sums = {name: file_sha256(tmp_path / name) for name in names}
    write_sums(tmp_path, sums)
    assert read_sums(tmp_path) == sums
    words = ["sha256sum", "--strict", "--check", SUMS]
    subprocess.run(words, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    whole = (tmp_path / SUMS).read_text()
    for damaged in (whole[:-1].partition(" ")[0], whole.replace("  ", " "), whole * 2, "\n" + whole):
        (tmp_path / SUMS).write_text(damaged)
        with pytest.raises(ValueError, match="no sum, or a second one"):
            read_sums(tmp_path)


def test_what_is_no_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "folder.tar.gz").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder.tar.gz", "none.tar.gz", "file/p.tar.gz"):
        with pytest.raises(InputError, match="no such file"):
            unpack(tmp_path / name, tmp_path)
