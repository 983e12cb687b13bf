"""The README's C program, with the README's commands, prints what the README says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

import docker
from kernels.models import catalog, read_model
from tests.conftest import ROOT
from toolchains.engines.docker_engine import DockerEngine
from toolchains.engines.image import image_tag
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import find_target

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The README's first block of code in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_prints_what_the_readme_says(
    docker_engine: DockerEngine, options: Options, tmp_path: Path
) -> None:
    target = find_target("riscv64")
    docker_engine.prepare(target, print)
    options = msgspec.structs.replace(options, checks="sample")  # the archive is the same
    build(read_model(catalog()["resnet50"]), target, options, Progress())
    work = tmp_path / "work"
    (work / "dist").mkdir(parents=True)
    (archive,) = options.out.glob("resnet50-*-riscv64.tar.gz")
    (work / "dist" / archive.name).write_bytes(archive.read_bytes())
    (work / "example.c").write_text(block("c"), encoding="utf-8")
    client = docker.from_env()
    output = client.containers.run(
        image_tag(target),
        ["sh", "-ec", block("sh")],
        remove=True,
        network_mode="none",
        working_dir="/work",
        volumes={str(work): {"bind": "/work", "mode": "rw"}},
        user=f"{os.getuid()}:{os.getgid()}",
    )
    client.close()
    assert output.decode() == block("text")


def test_the_example_is_short() -> None:
    assert len([line for line in block("c").splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("task", re.findall(r"invoke ([a-z]+)", README))
def test_every_task_that_the_readme_names_exists(task: str) -> None:
    text = (ROOT / "tasks.py").read_text(encoding="utf-8")
    assert f"\ndef {task}(" in text
