"""Archives whose bytes depend on their members alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from toolchains.scratch import write_whole

EPOCH = 0
"""Modification time of every member but in releases, in seconds since 1970."""


def make_archive(path: Path, prefix: str, members: dict[str, Path], epoch: int = EPOCH) -> str:
    """Write a `.tar.gz` of the members by name, under `prefix/`; gives its SHA-256.

    Entries are sorted, owned by nobody in particular, and readable by all; the file
    appears whole or not at all.
    """
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=EPOCH, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, source in sorted(members.items()):
            data = source.read_bytes()
            entry = tarfile.TarInfo(f"{prefix}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), epoch, 0o644
            archive.addfile(entry, io.BytesIO(data))
    write_whole(path, raw.getvalue())
    return hashlib.sha256(raw.getvalue()).hexdigest()
