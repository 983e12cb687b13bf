"""Signatures of minisign (https://jedisct1.github.io/minisign/), by whoever has a key."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kernels.errors import CheckFailedError, InputError, MissingToolError, UsageError
from toolchains.limits import limit
from toolchains.process import run

SUFFIX = ".minisig"


def require_key(key: Path) -> None:
    """MissingToolError without minisign, UsageError without the secret key: before hours of work."""
    _minisign()
    if not key.is_file():
        raise UsageError(f"--sign {key}: no such file; `minisign -G` makes a key")


def sign(path: Path, key: Path) -> None:
    """Sign a file with a secret key, into a file beside it. InputError if minisign refuses.

    minisign has the terminal, on which it asks for the key's password.
    """
    words = [_minisign(), "-S", "-s", str(key), "-m", str(path)]
    try:
        status = subprocess.run(  # noqa: S603 - words are built by us, never by a shell
            words, check=False, timeout=limit("tool"), stdout=subprocess.DEVNULL
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise InputError(f"--sign {key}: minisign got no password in {limit('tool'):.0f} s") from error
    if status != 0:
        raise InputError(
            f"--sign {key}: minisign did not sign; is it a secret key, and the password right?"
        )


def require_signature(path: Path, key: str) -> None:
    """CheckFailedError unless a file is signed by a public key: minisign's file of it, or its words."""
    if not path.with_name(f"{path.name}{SUFFIX}").is_file():
        raise CheckFailedError(f"{path}: no {path.name}{SUFFIX} beside it: it is not signed")
    public = ["-p", key] if Path(key).is_file() else ["-P", key]
    ended = run([_minisign(), "-V", *public, "-m", str(path)], timeout=limit("tool"))
    if ended.status != 0:
        told = (ended.output.splitlines() or ["no reason given"])[-1]
        raise CheckFailedError(f"{path}: not signed by {key} ({told})")


def _minisign() -> str:
    found = shutil.which("minisign")
    if found is None:
        raise MissingToolError(
            "minisign is missing; Debian's package has that name, and `invoke setup` brings it"
        )
    return found
