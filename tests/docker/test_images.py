"""Images: made of what is pinned, and of the same files and bytes each time."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from typing import Any, cast

import pytest

import docker
from tests.conftest import ROOT
from toolchains.engines.docker_engine import DockerEngine
from toolchains.engines.image import LISTS, build_arguments, build_image, image_tag, packages
from toolchains.engines.pinned import image_pins, versions_of
from toolchains.target import find_target

TARGET = "riscv64"
OF_THE_CONTAINER = re.compile(
    r"\.dockerenv|etc|etc/(hostname|hosts|mtab|resolv\.conf)|(dev|proc|sys)(/.*)?"
)
"""What an engine lays over an image's files when it makes a container of it."""


class Stream:
    """A file of the chunks of an exported container, so that it need not fit in memory."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        """`chunks` in their order."""
        self._chunks, self._rest = chunks, b""

    def read(self, size: int) -> bytes:
        """As many bytes, fewer at the end."""
        while len(self._rest) < size and (chunk := next(self._chunks, b"")):
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def contents(client: Any, tag: str) -> dict[str, tuple[object, ...]]:
    """Every file of an image: its kind, mode, owner, time, and link or SHA-256."""
    container = client.containers.create(tag, ["true"])
    try:
        found = {}
        stream = cast("Any", Stream(container.export(chunk_size=1 << 20)))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                if OF_THE_CONTAINER.fullmatch(entry.name):
                    continue
                file = archive.extractfile(entry) if entry.isfile() else None
                sha256 = hashlib.file_digest(file, "sha256").hexdigest() if file else ""
                found[entry.name] = (
                    entry.type,
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    entry.mtime,
                    entry.linkname,
                    sha256,
                )
        return found
    finally:
        container.remove()


@pytest.mark.everything
def test_an_image_that_is_built_twice_has_the_same_files_and_bytes(docker_engine: DockerEngine) -> None:
    target = find_target(TARGET)
    docker_engine.prepare(target, print)
    client = docker.from_env(timeout=600)
    again = f"kernfit-again-{TARGET}:test"
    try:
        build_image(client, again, build_arguments(client, target, print), print, anew=True)
        first, second = contents(client, image_tag(target)), contents(client, again)
        assert packages(client, again) == packages(client, image_tag(target))
        differing = sorted(
            name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
        )
        assert not differing, [(name, first.get(name), second.get(name)) for name in differing[:20]]
        assert len(first) > 5000
    finally:
        client.images.remove(again, force=True)
        client.close()


def test_an_image_says_which_packages_it_is_made_from(docker_engine: DockerEngine) -> None:
    target = find_target(TARGET)
    docker_engine.prepare(target, print)
    client = docker.from_env()
    found = packages(client, image_tag(target))
    installed = client.containers.run(image_tag(target), ["dpkg-query", "-W"], remove=True)
    client.close()
    assert found.keys() == LISTS.keys() == image_pins().debian.keys()
    (suite,) = (suite for suite, names in LISTS.items() if "packages" in names)
    assert versions_of(installed.decode()).items() <= found[suite].items()
    for name, versions in found.items():
        assert versions.keys() <= image_pins().debian[name].keys(), "a package came that is not pinned"
        assert "qemu-user" in versions


def test_no_file_of_the_context_names_a_host() -> None:
    for path in sorted((ROOT / "docker").iterdir()):
        assert "://" not in path.read_text(encoding="utf-8"), path
