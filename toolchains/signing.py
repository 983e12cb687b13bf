"""Signatures of minisign (https://jedisct1.github.io/minisign/), by whoever has a key."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kernels.errors import CheckFailedError, InputError, MissingToolError, UsageError

SUFFIX = ".minisig"
SECONDS = 600.0
"""Enough to type the key's password, which minisign asks for on the terminal."""


def require_key(key: Path) -> None:
    """MissingToolError without minisign, UsageError without the secret key: before hours of work."""
    _minisign()
    if not key.is_file():
        raise UsageError(f"--sign {key}: no such file; `minisign -G` makes a key")


def sign(path: Path, key: Path) -> Path:
    """Sign a file with a secret key; the signature's file. InputError if minisign refuses."""
    words = [_minisign(), "-S", "-s", str(key), "-m", str(path)]
    if subprocess.run(words, check=False, timeout=SECONDS, stdout=subprocess.DEVNULL).returncode != 0:  # noqa: S603
        raise InputError(
            f"--sign {key}: minisign did not sign; is it a secret key, and the password right?"
        )
    return path.with_name(f"{path.name}{SUFFIX}")


def require_signature(path: Path, key: str) -> None:
    """CheckFailedError unless a file is signed by a public key: minisign's file of it, or its words."""
    if not path.with_name(f"{path.name}{SUFFIX}").is_file():
        raise CheckFailedError(f"{path}: no {path.name}{SUFFIX} beside it: it is not signed")
    public = ["-p", key] if Path(key).is_file() else ["-P", key]
    words = [_minisign(), "-V", *public, "-m", str(path)]
    ended = subprocess.run(words, check=False, timeout=SECONDS, capture_output=True, text=True)  # noqa: S603
    if ended.returncode != 0:
        told = (ended.stderr.splitlines() or ["no reason given"])[-1]
        raise CheckFailedError(f"{path}: not signed by {key} ({told})")


def _minisign() -> str:
    found = shutil.which("minisign")
    if found is None:
        raise MissingToolError(
            "minisign is missing; Debian's package has that name, and `invoke setup` brings it"
        )
    return found
