"""A commit gives the same bytes whatever the folder, user, umask, locale, zone, host, clock and order."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.clones import SEVERAL, commit_of_the_project, invoke
from tests.faults import NO_NAMESPACES, may_have_namespaces
from tests.networks import weights
from tests.targets import FEW
from toolchains.archive import SUMS
from toolchains.link import zig_environment
from toolchains.target import all_targets

SOURCE = Path(__file__).parent / "elsewhen.c"
DAYS_LATER = 500
ELSEWHERE = """
hostname elsewhere
umask 077
exec unshare --user --map-user=4321 --map-group=4321 -- "$@"
"""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What shall not matter: where the clone is, what runs the command, its environment, and more words."""

    folder: str
    command: Sequence[str] = ()
    env: Mapping[str, str] = {}
    words: Sequence[str] = ("--engine", "local")


def network(path: Path) -> None:
    """A convolution, a product and what belongs to them, with weights."""
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (8, 5)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "v"], ["m"], "product"),
        helper.make_node("Softmax", ["m"], ["y"], "share"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(weights(name, shape), name) for name, shape in shapes.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def preloaded(folder: Path) -> Path:
    """The library that shifts time and the order of folders."""
    path = folder / "elsewhen.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-gnu", "-O1"]
    command += ["-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-DOFFSET={DAYS_LATER * 86400}"]
    subprocess.run([*command, "-o", str(path), str(SOURCE)], check=True, env=zig_environment())
    return path


def elsewhere(folder: Path) -> World:
    """Another user, host, time, zone and language; folders are read backwards, and steps run at once."""
    temporary = folder / "temporary files"
    temporary.mkdir()
    return World(
        folder="ein Ordner, weit weg/mit Ümläuten",
        command=["unshare", "--user", "--map-root-user", "--uts", "sh", "-ec", ELSEWHERE, "sh"],
        env={
            "LD_PRELOAD": str(preloaded(folder)),
            "TZ": "Pacific/Kiritimati",
            "LANG": "tr_TR.UTF-8",
            "LC_ALL": "tr_TR.UTF-8",
            "PYTHONHASHSEED": "77",
            "TMPDIR": str(temporary),
        },
        words=["--engine", "local", "--jobs", "3"],
    )


HERE = World(
    folder="clone",
    env={"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
    words=["--engine", "local", "--jobs", "1"],
)


def released(origin: Path, folder: Path, world: World, words: Sequence[str]) -> str:
    """The sums of what is made in a clone of its own, in that world."""
    clone = folder / world.folder
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(origin), str(clone)], check=True)
    finished = invoke(clone, "release", *words, *world.words, before=world.command, env=world.env)
    assert finished.returncode == 0, finished.stdout
    return (clone / "release" / SUMS).read_text(encoding="utf-8")


def compare(folder: Path, worlds: Sequence[World], words: Sequence[str], count: int) -> None:
    """All worlds make the same `count` archives of a commit that has three models more."""
    origin = folder / "origin"
    origin.mkdir()
    network(origin / "net.onnx")
    commit_of_the_project(origin, {"several.toml": SEVERAL})
    with ThreadPoolExecutor(len(worlds)) as pool:
        sums = list(pool.map(lambda world: released(origin, folder, world, words), worlds))
    assert sums[0].count(".tar.gz") == count
    assert sums == sums[:1] * len(sums)


needs_elsewhere = pytest.mark.skipif(not may_have_namespaces(), reason=NO_NAMESPACES)


def test_the_preloaded_library_shifts_time_and_order(tmp_path: Path) -> None:
    script = "import os, time; print(int(time.time())); print(*os.listdir('/'), sep='|')"
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **env},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        for env in ({}, {"LD_PRELOAD": str(preloaded(tmp_path))})
    ]
    assert (int(told[1][0]) - int(told[0][0])) // 86400 == DAYS_LATER
    assert told[1][1].split("|") == told[0][1].split("|")[::-1]


@needs_elsewhere
def test_elsewhere_the_same_is_made(tmp_path: Path) -> None:
    words = ["--arch", ",".join(FEW), "--model", "several.toml,net.onnx", "--check", "sample"]
    compare(tmp_path, [HERE, elsewhere(tmp_path)], words, 6)


@pytest.mark.everything
@needs_elsewhere
def test_elsewhere_the_same_is_made_for_every_target(tmp_path: Path) -> None:
    words = ["--arch", "all", "--model", "several.toml,net.onnx,blas,mobilenet_v1", "--check", "sample"]
    compare(tmp_path, [HERE, elsewhere(tmp_path)], words, 4 * len(all_targets()))
