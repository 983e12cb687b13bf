"""Archives and the cache: the same bytes each time, and damage is noticed."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from toolchains.archive import make_archive
from toolchains.cache import Store, digest
from toolchains.scratch import write_whole


def members(folder: Path, names: list[str], mode: int, when: int) -> dict[str, Path]:
    """Files with content that depends on their name alone."""
    folder.mkdir()
    found = {}
    for name in names:
        path = folder / name
        path.write_text(name * 50, encoding="utf-8")
        path.chmod(mode)
        os.utime(path, (when, when))
        found[name] = path
    return found


def test_an_archive_depends_on_its_members_alone(tmp_path: Path) -> None:
    one = members(tmp_path / "one", ["b.h", "a.a"], 0o600, 1)
    two = members(tmp_path / "two", ["a.a", "b.h"], 0o755, 2_000_000_000)
    first = make_archive(tmp_path / "1.tar.gz", "p", one)
    assert first == make_archive(tmp_path / "2.tar.gz", "p", two)
    with tarfile.open(tmp_path / "1.tar.gz") as archive:
        assert archive.getnames() == ["p/a.a", "p/b.h"]
        assert {(m.mode, m.uid, m.gid, m.uname, m.mtime) for m in archive} == {(0o644, 0, 0, "", 0)}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(self: Path, data: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_store_keeps_and_notices_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = digest("key")
    assert store.get(key) is None
    store.put(key, b"data")
    assert store.get(key) == b"data"
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    assert store.get(key) is None
    assert not path.exists()
