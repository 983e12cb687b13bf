"""Which of the QEMUs on a machine runs a target's code, and whether it can count."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from toolchains.limits import VARIABLE, limit
from toolchains.process import run
from toolchains.target import Qemu


class Emulator(msgspec.Struct, frozen=True, kw_only=True):
    """A QEMU in user mode: where it is, its version, whether it loads plugins, or why it cannot be used."""

    path: Path
    version: tuple[int, int, int]
    loads_plugins: bool
    trouble: str = ""

    @property
    def name(self) -> str:
        """As reports call it: the program, without how it was linked, and its version."""
        return f"{self.path.name.removesuffix('-static')} {'.'.join(map(str, self.version))}"


def cache_folder() -> Path:
    """Where `invoke setup` keeps what it unpacks without rights."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kernfit"


def find_emulator(qemu: Qemu) -> Emulator | None:
    """The emulator for a target: one that is new enough, of these one that loads plugins.

    Without one that is new enough, the first there is; None if there is none at all.
    """
    return next(iter(_ordered(qemu)), None)


def find_other_emulator(qemu: Qemu) -> Emulator | None:
    """One of another version than that which `find_emulator` gives, and new enough too."""
    found = _ordered(qemu)
    others = (each for each in found if each.version != found[0].version)
    return next((each for each in others if each.version[:2] >= qemu.minimum), None)


def _ordered(qemu: Qemu) -> list[Emulator]:
    found = [_examined(path) for path in _installed(qemu.binary)]
    return sorted(found, key=lambda each: (each.version[:2] < qemu.minimum, not each.loads_plugins))


def _installed(binary: str) -> Iterator[Path]:
    """Every such program on the search path and in setup's cache, linked statically or not."""
    folders = [Path(word) for word in os.environ.get("PATH", os.defpath).split(os.pathsep) if word]
    for folder in (*folders, cache_folder() / "qemu" / "usr" / "bin"):
        for path in (folder / binary, folder / f"{binary}-static"):
            if path.is_file() and os.access(path, os.X_OK):
                yield path


@cache
def _examined(path: Path) -> Emulator:
    told = run([str(path), "--version"], timeout=limit("probe"))
    number = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", told.output)
    if number is None:
        why = f"status {told.status}"
        if told.timed_out:
            why = f"not within {limit('probe'):.0f} s, which {VARIABLE}=probe=SECONDS sets"
        trouble = f"{path} did not say its version ({why}); `invoke setup` brings another"
        return Emulator(path=path, version=(0, 0, 0), loads_plugins=False, trouble=trouble)
    words: list[str] = []
    run([str(path), "--help"], timeout=limit("probe"), on_line=words.append)
    return Emulator(
        path=path,
        version=(int(number[1]), int(number[2]), int(number[3] or 0)),
        loads_plugins=any(line.startswith("-plugin ") for line in words),
    )
