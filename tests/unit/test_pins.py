"""Every package is pinned, by hash, in files that agree and name no host."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from toolchains.pins import LIST, PROJECT, REQUIREMENTS, pinned


def test_the_files_of_pins_agree() -> None:
    constraints = pinned(LIST.findall(PROJECT.read_text(encoding="utf-8"))[0])
    assert constraints["apache-tvm"] == "0.27.0.post1"
    everything, steps = (pinned(path.read_text(encoding="utf-8")) for path in REQUIREMENTS)
    assert everything.items() <= constraints.items()
    others = constraints.keys() - everything.keys()
    assert {"mkl", "scipy-openblas32", "onednn-cpu-gomp"} <= others, "what the bench alone needs"
    assert steps.items() <= constraints.items()
    assert {"apache-tvm", "numpy", "msgspec", "ziglang"} <= steps.keys()


def test_every_requirement_has_hashes() -> None:
    for path in REQUIREMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip()]
        assert lines
        assert all("--hash=sha256:" in line for line in lines), path


def test_no_file_of_pins_names_a_host() -> None:
    for path in (PROJECT, *REQUIREMENTS):
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path


def test_the_readme_and_ci_use_one_uv() -> None:
    named = {
        found
        for name in ("README.md", ".ci/setup")
        for found in re.findall(r"uv==([0-9.]+)", (ROOT / name).read_text(encoding="utf-8"))
    }
    assert len(named) == 1
