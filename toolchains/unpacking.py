"""Archives of others are opened with distrust: what is not as `make_archive` writes it is refused."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

import msgspec

from kernels.errors import InputError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Of a member, below its archive's folder; there are no folders below that."""
KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.GNUTYPE_SPARSE: "sparse",
}


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive held: its members' files by name, and their time in seconds since 1970."""

    prefix: str
    members: dict[str, Path]
    epoch: int


class _Bounded(io.RawIOBase):
    """What a stream gives, up to `limit` bytes: ours hold stored blocks, which never expand."""

    def __init__(self, stream: IO[bytes], limit: int, path: Path) -> None:
        self._stream, self._left, self._path = stream, limit, path

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._path}: expands to more than its own size, which no archive of kernfit does"
            )
        return data


def unpack(path: Path, folder: Path) -> Contents:
    """Unpack an archive into a folder that is there, members beside one another.

    InputError, with the member's name, for all that could do harm: a name that leads out of the
    archive's folder, a link, a name that comes twice, more bytes than the file has itself; and
    where the file is truncated or damaged.
    """
    prefix = path.name.removesuffix(".tar.gz")
    members: dict[str, Path] = {}
    times: set[int] = set()
    try:
        with gzip.open(path) as packed:
            bounded = cast("IO[bytes]", _Bounded(cast("IO[bytes]", packed), path.stat().st_size, path))
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                for entry in archive:
                    name = _name(path, prefix, entry)
                    if name in members:
                        raise InputError(f"{path}: the member '{entry.name}' comes twice")
                    members[name] = folder / name
                    times.add(int(entry.mtime))
                    source = archive.extractfile(entry)
                    if source is not None:
                        with members[name].open("xb") as out:
                            shutil.copyfileobj(source, out, 1 << 20)
            while bounded.read(1 << 20):  # to the end, where the checksum is
                pass
    except EOFError as error:
        raise InputError(f"{path}: truncated; fetch it again") from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{path}: no such file") from error
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: no archive, or a damaged one ({error}); fetch it again") from error
    if len(times) != 1:
        raise InputError(f"{path}: {'members differ in their time' if times else 'it is empty'}")
    return Contents(prefix=prefix, members=members, epoch=times.pop())


def _name(path: Path, prefix: str, entry: tarfile.TarInfo) -> str:
    """The member's name below the archive's folder."""
    # What tarfile calls regular may be sparse: terabytes of zeros that the file does not hold.
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
        kind = KINDS.get(entry.type, "no file")
        target = f" to '{entry.linkname}'" if entry.linkname else ""
        raise InputError(f"{path}: the member '{entry.name}' is {kind}{target}; only files are allowed")
    folder, _, name = entry.name.rpartition("/")
    if folder != prefix or not NAME.fullmatch(name):
        raise InputError(f"{path}: the member '{entry.name}' is not in the archive's folder '{prefix}'")
    return name
