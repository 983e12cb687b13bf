"""docker/pins.toml: all that images are made from, by version and hash; and what drifted from it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from kernels.errors import InputError
from toolchains.cache import ROOT

PINS = ROOT / "docker" / "pins.toml"
SUITE, OLD_SUITE = "trixie", "bookworm"
"""Debian 13, which images are, and Debian 12, of which they have a QEMU."""


class ImagePins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base by digest, Debian's packages by version, and Python's by version and hashes.

    `epoch` (seconds since 1970) is the time of every file that an image adds to its base.
    Versions of Debian's packages are those of `architecture`; of another one some differ.
    """

    base: str
    epoch: int
    architecture: str
    debian: dict[str, dict[str, str]]
    wheels: dict[str, tuple[str, ...]]
    """Hashes by `name==version`."""


@cache
def image_pins() -> ImagePins:
    """What the file says; InputError if it is not as it should be."""
    try:
        return msgspec.toml.decode(PINS.read_bytes(), type=ImagePins)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"docker/pins.toml: {error}; `invoke pins --update` writes it anew") from error


def requirements(pins: ImagePins) -> str:
    """The wheels as `pip install --require-hashes` reads them."""
    return "".join(
        f"{name} {' '.join(f'--hash={each}' for each in hashes)}\n" for name, hashes in pins.wheels.items()
    )


def preferences(versions: dict[str, str]) -> str:
    """What holds apt to these versions, wherever an archive still has them (apt_preferences(5))."""
    return "\n".join(
        f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n"
        for name, version in versions.items()
    )


def wheels_of(text: str) -> dict[str, tuple[str, ...]]:
    """Hashes by `name==version` in a requirements file, markers left out."""
    joined = text.replace("\\\n", " ")
    return {
        found[1]: tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", line))
        for line in joined.splitlines()
        if (found := re.match(r"([a-z0-9-]+==[^\s;]+)", line))
    }


def versions_of(text: str) -> dict[str, str]:
    """Versions by package in what `dpkg-query -W` prints, architectures left out."""
    pairs = (line.split("\t") for line in text.splitlines() if line.strip())
    return {name.split(":")[0]: version for name, version in pairs}


def drift(found: dict[str, dict[str, str]], pins: ImagePins) -> list[str]:
    """How packages of an image, by suite, differ from those that are pinned; a line each."""
    return [
        f"{suite}: {name} {version} came, {pins.debian[suite].get(name, 'nothing')} is pinned"
        for suite, versions in sorted(found.items())
        for name, version in sorted(versions.items())
        if pins.debian[suite].get(name) != version
    ]


def write_pins(path: Path, pins: ImagePins) -> None:
    """Write the file, in an order of its own, so that two updates differ where versions do."""
    ordered: dict[str, Any] = {
        "base": pins.base,
        "epoch": pins.epoch,
        "architecture": pins.architecture,
        "debian": {suite: dict(sorted(versions.items())) for suite, versions in pins.debian.items()},
        "wheels": {name: sorted(hashes) for name, hashes in sorted(pins.wheels.items())},
    }
    lines = [
        "# All that images are made from. `invoke pins --update` writes this file and says what changed.",
        *(f"{name} = {_value(ordered[name])}" for name in ("base", "epoch", "architecture")),
    ]
    for suite, versions in ordered["debian"].items():
        lines += ["", f"[debian.{suite}]"]
        lines += [f"{_value(name)} = {_value(version)}" for name, version in versions.items()]
    lines += ["", "[wheels]"]
    for name, hashes in ordered["wheels"].items():
        lines += [f"{_value(name)} = [", *(f"    {_value(each)}," for each in hashes), "]"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _value(value: str | int) -> str:
    return msgspec.json.encode(value).decode()
