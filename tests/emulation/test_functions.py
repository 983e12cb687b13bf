"""Elementary functions stay within the units in the last place that they state.

With --everything over all 2^32 arguments (an hour); else over every 32,771st, which visits
every exponent about five hundred times.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from kernels.models import read_model
from tests.conftest import ROOT
from tests.targets import linking_compiler
from toolchains.emulators import find_emulator
from toolchains.link import zig_environment
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import find_target

LIMITS = {
    **dict.fromkeys(("exp", "log", "tanh", "erf", "sigmoid", "sinh", "cosh", "acos", "atan", "atanh"), 2.0),
    **dict.fromkeys(("sin", "cos"), 1.0),
    **dict.fromkeys(("tan", "asin", "asinh", "acosh", "softplus"), 3.0),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, options: Options) -> list[str]:
    """The command that runs the functions over their arguments, on this machine if it can."""
    folder: Path = tmp_path_factory.mktemp("functions")
    text = 'name = "functions"\nsource = "every argument"\n'
    for name in LIMITS:
        text += f'\n[[kernel]]\nname = "{name}"\nop = "{name}"\ninputs = {{ x = [65536] }}\n'
    (folder / "functions.toml").write_text(text, encoding="utf-8")
    target = find_target("x86_64")
    build(read_model(folder / "functions.toml"), target, options, Progress())
    library = options.build / "x86_64" / "functions"
    command = [
        *linking_compiler(target),
        "-O2",
        "-static",
        "-fno-sanitize=all",
        "-I",
        str(library),
        str(ROOT / "tests" / "emulation" / "exhaustive.c"),
        str(library / "libfunctions.a"),
        "-lm",
        "-o",
        "exhaustive",
    ]
    subprocess.run(command, cwd=folder, env=zig_environment(), check=True)
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if platform.machine() == "x86_64" and " avx2 " in flags and " fma " in flags:
        return [str(folder / "exhaustive")]
    emulator = find_emulator(target.qemu)
    assert emulator is not None
    return [str(emulator.path), "-cpu", target.qemu.cpus[0], str(folder / "exhaustive")]


def errors(command: list[str], stride: int) -> dict[str, float]:
    """The largest error of each function, in units in the last place."""
    done = subprocess.run([*command, str(stride)], check=True, capture_output=True, text=True)
    return {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}


def test_a_sample_of_all_arguments(program: list[str]) -> None:
    found = errors(program, 32771)
    assert set(found) == set(LIMITS)
    assert {name: error for name, error in found.items() if error > LIMITS[name]} == {}


@pytest.mark.everything
def test_every_argument(program: list[str]) -> None:
    found = errors(program, 1)
    assert set(found) == set(LIMITS)
    assert {name: error for name, error in found.items() if error > LIMITS[name]} == {}
