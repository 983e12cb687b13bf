"""Content-addressed storage of finished steps, below `build/cache`."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from toolchains.scratch import write_whole

ROOT = Path(__file__).resolve().parent.parent
MADE_FROM = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "ziglang")
"""The packages of PyPI whose code decides the bytes of an archive."""


def digest(*parts: Any) -> str:
    """SHA-256 of the parts' JSON."""
    return hashlib.sha256(b"\0".join(msgspec.json.encode(part) for part in parts)).hexdigest()


@cache
def code_digest(*folders: str) -> str:
    """SHA-256 of all source files of these folders: our code is an input like any other."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".c", ".h", ".toml") and path.is_file():
                total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of the packages of MADE_FROM, from their metadata: nothing is imported."""
    return {name: version(name) for name in MADE_FROM}


class Store:
    """Files by key. Each is stored behind its own SHA-256; a damaged one counts as absent."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when something is first kept."""
        self._folder = folder

    def get(self, key: str) -> bytes | None:
        """What was kept under `key`; a damaged entry is dropped."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            path.unlink(missing_ok=True)
            return None
        return data[32:]

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`."""
        write_whole(self._path(key), hashlib.sha256(data).digest() + data, durable=False)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key
