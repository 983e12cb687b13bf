"""Every package is pinned, by hash, in files that agree and name no host."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from kernels.errors import InputError
from tests.conftest import ROOT
from toolchains.engines import pinned as image_files
from toolchains.engines.pinned import (
    PINS,
    drift,
    image_pins,
    preferences,
    requirements,
    versions_of,
    wheels_of,
    write_pins,
)
from toolchains.pins import LIST, PROJECT, REQUIREMENTS, pinned
from toolchains.provision import IMPORTED


def test_the_files_of_pins_agree() -> None:
    constraints = pinned(LIST.findall(PROJECT.read_text(encoding="utf-8"))[0])
    assert constraints["apache-tvm"] == "0.27.0.post1"
    everything = pinned(REQUIREMENTS.read_text(encoding="utf-8"))
    assert everything.items() <= constraints.items()
    others = constraints.keys() - everything.keys()
    assert {"mkl", "scipy-openblas32", "onednn-cpu-gomp"} <= others, "what the bench alone needs"
    steps = dict(name.split("==") for name in image_pins().wheels)
    assert steps.items() <= constraints.items()
    assert {"apache-tvm", "numpy", "msgspec", "ziglang"} <= steps.keys()


def test_every_requirement_has_hashes() -> None:
    text = REQUIREMENTS.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    assert all("--hash=sha256:" in line for line in lines)
    assert all(image_pins().wheels.values())


def test_no_file_of_pins_names_a_host() -> None:
    for path in (PROJECT, REQUIREMENTS, PINS):
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path


def test_pins_of_images_are_written_as_they_are_read(tmp_path: Path) -> None:
    written = tmp_path / "pins.toml"
    write_pins(written, image_pins())
    assert written.read_bytes() == PINS.read_bytes(), "edited by hand: `invoke pins --update` writes it"
    assert wheels_of(requirements(image_pins())) == image_pins().wheels


def test_pins_with_a_fault_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "pins.toml"
    broken.write_text(PINS.read_text(encoding="utf-8").replace("epoch = ", "epochs = "), encoding="utf-8")
    monkeypatch.setattr(image_files, "PINS", broken)
    image_pins.cache_clear()
    with pytest.raises(InputError, match="epochs"):
        image_pins()
    image_pins.cache_clear()


def test_what_differs_from_the_pins_is_named() -> None:
    found = {"trixie": {"apt": "0.1", "unheard-of": "1"}, "bookworm": image_pins().debian["bookworm"]}
    apt = image_pins().debian["trixie"]["apt"]
    assert drift(found, image_pins()) == [
        f"trixie: apt 0.1 came, {apt} is pinned",
        "trixie: unheard-of 1 came, nothing is pinned",
    ]
    assert versions_of("libc6:amd64\t2.41-12\napt\t3.0\n") == {"libc6": "2.41-12", "apt": "3.0"}
    assert preferences({"apt": "3.0"}) == "Package: apt\nPin: version 3.0\nPin-Priority: 1001\n"


def test_the_readme_and_ci_use_one_uv() -> None:
    named = {
        found
        for name in ("README.md", ".ci/setup")
        for found in re.findall(r"uv==([0-9.]+)", (ROOT / name).read_text(encoding="utf-8"))
    }
    assert len(named) == 1


def test_what_is_compiled_for_steps_is_there() -> None:
    assert all(map(find_spec, IMPORTED))
