"""Docker images: one for each target, from what is pinned."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

import docker
from kernels.errors import EngineError, ResourceError
from toolchains.cache import ROOT, digest
from toolchains.engines.base import ensure_base
from toolchains.engines.pinned import (
    OLD_SUITE,
    PINS,
    SUITE,
    drift,
    image_pins,
    preferences,
    requirements,
    versions_of,
)
from toolchains.engines.talking import FULL, labels, talking, within
from toolchains.limits import limit
from toolchains.target import Target

CONTEXT = ROOT / "docker"

Say = Callable[[str], None]


LISTS = {SUITE: ("packages", "emulators"), OLD_SUITE: ("counting",)}
"""Files of an image's /opt/kernfit that list the Debian packages it is made from, by suite."""


def image_tag(target: Target) -> str:
    """The name of a target's image: it changes with everything the image is made from."""
    parts = [context(), arguments(target), image_pins().base]
    return f"kernfit-{target.name}:{digest(*parts)[:16]}"


def context() -> dict[str, str]:
    """The files that the image is built from, by name: those of `docker/`, and what is pinned."""
    pins = image_pins()
    files = {path.name: path.read_text(encoding="utf-8") for path in CONTEXT.iterdir() if path != PINS}
    return {
        **files,
        "requirements.txt": requirements(pins),
        "preferences": preferences(pins.debian[SUITE]),
        "old-preferences": preferences(pins.debian[OLD_SUITE]),
    }


def arguments(target: Target) -> dict[str, str]:
    """The Dockerfile's arguments that depend on the target."""
    return {"PACKAGES": f"{target.c.package} {target.c.libc_package}", "QEMU": target.qemu.binary}


def ensure_image(client: Any, target: Target, on_line: Say, *, anew: bool = False) -> str:
    """The tag of the target's image, which is built if it is not there, or `anew` in any case."""
    tag = image_tag(target)
    if not anew:
        with contextlib.suppress(ImageNotFound):
            client.images.get(tag)
            return tag
    on_line(f"building image {tag}")
    build_image(client, tag, build_arguments(client, target, on_line), on_line, anew=anew)
    for line in drift(packages(client, tag), image_pins()):
        on_line(f"not as pinned: {line}; `invoke pins --update` pins what is there now")
    return tag


def build_arguments(client: Any, target: Target, on_line: Say) -> dict[str, str]:
    """All of the Dockerfile's arguments; makes the base image if it is not there."""
    epoch = str(image_pins().epoch)
    return {"BASE": ensure_base(client, on_line), "EPOCH": epoch, **arguments(target)}


def packages(client: Any, tag: str) -> dict[str, dict[str, str]]:
    """The Debian packages that an image is made from: versions by package, by suite."""
    found = {}
    for suite, names in LISTS.items():
        files = [f"/opt/kernfit/{name}" for name in names]
        told = client.containers.run(
            tag, ["cat", *files], remove=True, network_mode="none", labels=labels()
        )
        found[suite] = versions_of(told.decode())
    return found


def build_image(
    client: Any, tag: str, buildargs: dict[str, str], on_line: Say, *, anew: bool = False
) -> None:
    """Build `docker/` with the classic builder, streaming its log; EngineError if it fails.

    `anew` takes no layer from an earlier build.
    """
    log: list[str] = []

    def follow() -> None:
        stream = client.api.build(
            fileobj=_context(),
            custom_context=True,
            tag=tag,
            decode=True,
            rm=True,
            nocache=anew,
            forcerm=True,
            buildargs=buildargs,
        )
        for event in stream:
            for line in str(event.get("stream", "")).splitlines():
                if line.strip():
                    log.append(line.rstrip())
                    on_line(log[-1])
            if "error" in event:
                _fail(str(event["error"]), log)
        client.images.get(tag)

    try:
        within("image", f"the building of {tag}", follow)
    except DockerException as error:
        _fail(str(error), log)


def _fail(message: str, log: list[str]) -> None:
    if FULL in message.lower() + " ".join(log[-5:]).lower():
        raise ResourceError("Docker has no space left on its disk; `docker system prune` frees some")
    tail = "\n".join(log[-15:])
    raise EngineError(f"the image could not be built: {message}\n{tail}")


def _context() -> io.BytesIO:
    """The build context, with owner, mode and time fixed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, text in sorted(context().items()):
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 0
            archive.addfile(entry, io.BytesIO(data))
    raw.seek(0)
    return raw


def connect(timeout: float | None = None) -> Any:
    """A client of the engine that answers; EngineError if none does, or not to this user.

    It waits `timeout` seconds for each answer, or the limit `docker`.
    """
    seconds = limit("docker") if timeout is None else timeout
    try:
        _knock(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock", seconds)
        client = docker.from_env(timeout=seconds)
        client.ping()
    except PermissionError as error:
        raise EngineError("this user may not open Docker's socket") from error
    except (DockerException, RequestException, OSError) as error:
        raise EngineError("no Docker engine answers") from error
    return client


def _knock(host: str, seconds: float) -> None:
    """OSError where nobody listens; the SDK would leak its socket on finding out."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(seconds)
            door.connect(host.removeprefix("unix://"))


def load_images(path: Path, timeout: float) -> list[str]:
    """Give the engine the images of a file of `docker save`; their tags."""
    with path.open("rb") as stream, talking(f"loading {path}"):
        return [tag for image in connect(timeout).images.load(stream) for tag in image.tags]


def remove_images() -> list[str]:
    """Remove every image that kernfit made; their tags. EngineError if no engine answers."""
    client = connect()
    with talking("removing images"):
        tags = [tag for image in client.images.list() for tag in image.tags if tag.startswith("kernfit-")]
        for tag in tags:
            client.images.remove(tag, force=True)
    return tags
