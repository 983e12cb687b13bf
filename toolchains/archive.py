"""Archives whose bytes depend on their members alone."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO, cast

from toolchains.scratch import whole, write_whole

EPOCH = 0
"""Modification time of every member but in releases, in seconds since 1970."""
BLOCK_BYTES = (1 << 16) - 1
"""The most that a stored block can hold (RFC 1951, 3.2.4)."""
SUMS = "SHA256SUMS"
SUM = re.compile(r"([0-9a-f]{64})  (.+)")
"""A line of it, as sha256sum(1) writes and checks it."""
HEAD = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
"""A gzip member without a time, a name or a system (RFC 1952, 2.3)."""


class Stored(io.RawIOBase):
    """A gzip stream whose blocks are stored as they are, written to another stream.

    What zlib makes of the same bytes differs from version to version and from one of its
    successors to the next; the format itself does not. A network's weights shrink by 7 % under
    zlib, code to less than half; we forgo that. `sha256` is of all that was written so far.
    """

    def __init__(self, out: BinaryIO) -> None:
        """`out` is left open."""
        self._out, self._rest = out, bytearray()
        self._crc = self._size = 0
        self.sha256 = hashlib.sha256()
        self._put(HEAD)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Take some bytes; whole blocks of them are written."""
        taken = bytes(cast("bytes", data))
        self._crc = zlib.crc32(taken, self._crc)
        self._size += len(taken)
        self._rest += taken
        while len(self._rest) > BLOCK_BYTES:
            self._block(bytes(self._rest[:BLOCK_BYTES]), last=False)
            del self._rest[:BLOCK_BYTES]
        return len(taken)

    def close(self) -> None:
        """Write the last block, the checksum, and the size modulo 2^32."""
        if self.closed:
            return
        try:
            self._block(bytes(self._rest), last=True)
            self._put(self._crc.to_bytes(4, "little") + (self._size % (1 << 32)).to_bytes(4, "little"))
        finally:
            super().close()

    def _block(self, data: bytes, *, last: bool) -> None:
        size = len(data)
        self._put(bytes((last,)) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little"))
        self._put(data)

    def _put(self, data: bytes) -> None:
        self.sha256.update(data)
        self._out.write(data)


def make_archive(path: Path, prefix: str, members: Mapping[str, Path], epoch: int = EPOCH) -> str:
    """Write a `.tar.gz` of the members by name, under `prefix/`; gives its SHA-256.

    Entries are sorted, owned by nobody in particular, and readable by all; nothing but their
    names, bytes and `epoch` decides the bytes. The file appears whole or not at all.
    """
    with whole(path) as out, Stored(out) as packed:
        with tarfile.open(
            fileobj=cast("IO[bytes]", packed), mode="w|", format=tarfile.USTAR_FORMAT
        ) as archive:
            for name, source in sorted(members.items()):
                entry = tarfile.TarInfo(f"{prefix}/{name}")
                entry.size, entry.mtime, entry.mode = source.stat().st_size, epoch, 0o644
                with source.open("rb") as stream:
                    archive.addfile(entry, stream)
        packed.close()
        return packed.sha256.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write SHA256SUMS of files of a folder, whose SHA-256 come by name."""
    lines = (f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items()))
    write_whole(folder / SUMS, "".join(lines).encode())


def read_sums(folder: Path) -> dict[str, str]:
    """What a folder's SHA256SUMS says, by name; OSError without one, ValueError where it is none."""
    sums: dict[str, str] = {}
    for number, line in enumerate((folder / SUMS).read_text(encoding="utf-8").splitlines(), 1):
        found = SUM.fullmatch(line)
        if found is None or found[2] in sums:
            raise ValueError(f"line {number} is no sum, or a second one of the same file")
        sums[found[2]] = found[1]
    return sums
