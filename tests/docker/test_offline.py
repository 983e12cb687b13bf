"""A bundle sets up a machine that has no network, and a damaged one is refused by name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import docker
from kernels.errors import InputError, UsageError
from tests.clones import LISTING, commit_of_the_project, copy_of_the_project, invoke
from toolchains import bundle
from toolchains.archive import SUMS
from toolchains.engines.docker_engine import DockerEngine
from toolchains.engines.image import image_tag
from toolchains.making import VERSION
from toolchains.target import find_target

TARGET = find_target("s390x")
ALONE = ["unshare", "--net", "sh", "-ec", 'test -z "$(cat /proc/net/route | tail -n +2)"; exec "$@"', "sh"]
"""Runs a command in a network namespace that has no route, not even a loopback that is up."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without images."""
    folder = tmp_path_factory.mktemp("bundle") / "kernfit"
    bundle.write_bundle(folder, [TARGET], print, images=False)
    return folder


def bare(folder: Path, cache: Path) -> Mapping[str, str]:
    """The environment of a machine with no QEMU, no uv, and nothing in any cache."""
    programs = folder / "programs"
    programs.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for path in Path(place).glob("*"):
            if not path.name.startswith(("qemu", "uv")):
                (programs / path.name).unlink(missing_ok=True)
                (programs / path.name).symlink_to(path)
    kept = {name: os.environ[name] for name in ("LANG", "DOCKER_HOST") if name in os.environ}
    own = {"PATH": str(programs), "HOME": str(cache), "XDG_CACHE_HOME": str(cache / "cache")}
    return {**kept, **own, "UV_COMPILE_BYTECODE": "0"}


def build_offline(exported: Path, folder: Path, engine: str) -> str:
    """What is said where a clone of the project is set up and used without a network."""
    clone, cache = folder / "clone", folder / "home"
    cache.mkdir()
    copy_of_the_project(clone)
    (clone / "small.toml").write_text(LISTING, encoding="utf-8")
    script = (
        f"bash .ci/setup {exported} && .uv/bin/uv run --no-sync invoke setup --offline {exported} build "
        f"--arch {TARGET.name} --model small.toml --engine {engine} --require-checks"
    )
    finished = subprocess.run(
        [*ALONE, "bash", "-c", script],
        cwd=clone,
        env=bare(folder, cache),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    assert len(list((clone / "dist").glob("small-*.tar.gz"))) == 1
    return finished.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network namespace")
def test_the_local_engine_is_set_up_and_used_without_a_network(exported: Path, tmp_path: Path) -> None:
    said = build_offline(exported, tmp_path, "local")
    assert "QEMU: unpacking it" in said
    assert "the bundle has no images" in said


@pytest.mark.everything
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network namespace")
def test_the_docker_engine_is_set_up_and_used_without_a_network(
    docker_engine: DockerEngine, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    docker_engine.prepare(TARGET, print)
    bundle.write_bundle(folder, [TARGET], print)
    client = docker.from_env()
    client.images.remove(image_tag(TARGET), force=True)
    client.close()
    said = build_offline(folder, tmp_path, "docker")
    assert f"{image_tag(TARGET)} loaded" in said


@pytest.mark.everything
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network namespace")
def test_a_release_is_verified_without_a_network(exported: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    commit_of_the_project(clone, {"small.toml": LISTING})
    made = invoke(clone, "release", "--arch", TARGET.name, "--model", "small.toml", "--engine", "local")
    assert made.returncode == 0, made.stdout
    archive = f"release/small-{VERSION}-{TARGET.name}.tar.gz"
    words = ["verify", archive, "--engine", "local", "--offline", str(exported)]
    verified = invoke(clone, *words, before=ALONE)
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.splitlines()[-1].endswith(": the same bytes")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: flip(next((folder / "packages").iterdir())), r"packages/qemu\S+ is damaged"),
        (lambda folder: flip(folder / "pins" / "pins.toml"), r"pins\.toml is damaged"),
        (
            lambda folder: next((folder / "wheels").glob("ziglang*")).unlink(),
            r"wheels/ziglang\S+ is missing",
        ),
        (lambda folder: (folder / "wheels" / "x.whl").write_text("x"), r"x\.whl is not in SHA256SUMS"),
        (lambda folder: (folder / SUMS).unlink(), "not a bundle"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(
    exported: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "bundle"
    subprocess.run(["cp", "--archive", str(exported), str(folder)], check=True)
    bundle.check(folder)
    damage(folder)
    with pytest.raises(InputError, match=message):
        bundle.provide(folder, print)


def test_a_bundle_is_not_mixed_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        bundle.write_bundle(tmp_path, [TARGET], print, images=False)
