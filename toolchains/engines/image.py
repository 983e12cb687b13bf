"""Docker images: a base by digest or from Debian's packages, and one image per target."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

import docker
from kernels.errors import EngineError, MissingToolError, ResourceError
from toolchains.cache import ROOT, digest
from toolchains.process import run
from toolchains.target import Target

CONTEXT = ROOT / "docker"
BASE = "debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f"
"""Debian 13, the multi-architecture index."""
SUITE = "trixie"
PULL_SECONDS = 180.0
BOOTSTRAP_SECONDS = 900.0
CERTIFICATES = Path("/usr/local/share/ca-certificates")

Say = Callable[[str], None]


def image_tag(target: Target) -> str:
    """The name of a target's image: it changes with everything the image is made from."""
    parts = [path.read_text(encoding="utf-8") for path in sorted(CONTEXT.iterdir()) if path.is_file()]
    return f"kernfit-{target.name}:{digest(parts, arguments(target), BASE)[:16]}"


def arguments(target: Target) -> dict[str, str]:
    """The Dockerfile's arguments that depend on the target."""
    return {"PACKAGES": f"{target.c.package} {target.c.libc_package}", "QEMU": target.qemu.binary}


def ensure_image(client: Any, target: Target, on_line: Say) -> str:
    """The tag of the target's image, which is built if it is not there."""
    tag = image_tag(target)
    try:
        client.images.get(tag)
    except ImageNotFound:
        on_line(f"building image {tag}")
        build_image(client, tag, {"BASE": ensure_base(client, on_line), **arguments(target)}, on_line)
    return tag


def build_image(client: Any, tag: str, buildargs: dict[str, str], on_line: Say) -> None:
    """Build `docker/` with the classic builder, streaming its log; EngineError if it fails."""
    log: list[str] = []
    try:
        stream = client.api.build(
            fileobj=_context(),
            custom_context=True,
            tag=tag,
            decode=True,
            rm=True,
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
    except DockerException as error:
        _fail(str(error), log)


def _fail(message: str, log: list[str]) -> None:
    if "no space left on device" in message.lower() + " ".join(log[-5:]).lower():
        raise ResourceError("Docker has no space left on its disk; `docker system prune` frees some")
    tail = "\n".join(log[-15:])
    raise EngineError(f"the image could not be built: {message}\n{tail}")


def _context() -> io.BytesIO:
    """The build context, with owner, mode and time fixed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path in sorted(CONTEXT.iterdir()):
            if path.is_file():
                entry = tarfile.TarInfo(path.name)
                entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o644, 0
                archive.addfile(entry, io.BytesIO(path.read_bytes()))
    raw.seek(0)
    return raw


def ensure_base(client: Any, on_line: Say) -> str:
    """A Debian 13 to build upon: pulled by digest, or made here where no registry answers."""
    for name in (BASE, _bootstrapped_tag()):
        try:
            client.images.get(name)
        except (ImageNotFound, APIError):
            continue
        return name
    on_line(f"pulling {BASE}")
    reason = _pull(client)
    if not reason:
        return BASE
    on_line(f"no registry answers ({reason}): making the base image from Debian's packages")
    return _bootstrap(client, on_line)


def _pull(client: Any) -> str:
    """Why the base cannot be pulled; empty once it has been."""
    outcome = ["no answer in time"]

    def pull() -> None:
        try:
            client.images.pull(BASE)
            outcome[0] = ""
        except DockerException as error:
            outcome[0] = str(error).splitlines()[0][:200]

    thread = threading.Thread(target=pull, daemon=True)
    thread.start()
    thread.join(PULL_SECONDS)
    return outcome[0]


def _bootstrapped_tag() -> str:
    return f"kernfit-base:{digest(SUITE, _sources(), _certificates())[:16]}"


def _sources() -> list[str]:
    """Apt source lines for the suite from wherever this machine gets its Debian packages."""
    if shutil.which("apt-get") is None:
        return []
    targets = run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"], timeout=60).output
    found = []
    for line in dict.fromkeys(targets.splitlines()):
        label, _, uri = line.partition("|")
        if label == "Debian":
            found += [f"deb {uri} {SUITE} main", f"deb {uri} {SUITE}-updates main"]
        elif label == "Debian-Security":
            found.append(f"deb {uri} {SUITE}-security main")
    return list(dict.fromkeys(found))


def _certificates() -> list[str]:
    """The site's own certificates, which downloads inside a container need as well."""
    if not CERTIFICATES.is_dir():
        return []
    return [path.read_text(encoding="utf-8") for path in sorted(CERTIFICATES.glob("*.crt"))]


def _bootstrap(client: Any, on_line: Say) -> str:
    """Make the base with mmdebstrap, import it, and give its tag."""
    if shutil.which("mmdebstrap") is None:
        raise MissingToolError(
            "mmdebstrap is missing, and no registry has the base image; "
            "`invoke setup` installs it, or use --engine local"
        )
    sources = _sources()
    if not sources:
        raise EngineError(
            "no registry answers, and this machine has no Debian package sources to "
            "make a base image from; use --engine local"
        )
    tag = _bootstrapped_tag()
    with tempfile.TemporaryDirectory(prefix="kernfit-base-") as folder:
        tree = Path(folder) / "base.tar"
        command = [
            "mmdebstrap",
            "--variant=minbase",
            "--include=ca-certificates",
            *_acquire_options(),
            f"--customize-hook=copy-in {CERTIFICATES} /usr/local/share" if _certificates() else "",
            '--customize-hook=chroot "$1" update-ca-certificates',
            (
                '--customize-hook=rm -rf "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/var/cache/apt/*.bin '
                '"$1"/var/lib/apt/lists/*_*'
            ),
            SUITE,
            str(tree),
            "-",
        ]
        finished = subprocess.run(  # noqa: S603 - our own command, with sources on standard input
            [word for word in command if word],
            input="\n".join(sources),
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BOOTSTRAP_SECONDS,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
        )
        for line in finished.stdout.splitlines():
            on_line(line)
        if finished.returncode != 0:
            raise EngineError(f"mmdebstrap failed: {finished.stdout[-2000:]}")
        repository, version = tag.split(":")
        with tree.open("rb") as stream:
            client.api.import_image_from_data(stream, repository=repository, tag=version)
    return tag


def _acquire_options() -> list[str]:
    """What this machine told apt about downloading, such as a proxy."""
    dump = run(["apt-config", "dump"], timeout=60).output
    kept = re.findall(r'^(Acquire::(?:http|https|Retries)\S*) "([^"]+)";$', dump, re.MULTILINE)
    return [f'--aptopt={name} "{value}"' for name, value in kept]


def connect(timeout: float = 30.0) -> Any:
    """A client of the engine that answers; EngineError if none does, or not to this user."""
    try:
        _knock(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
        client = docker.from_env(timeout=int(timeout))
        client.ping()
    except PermissionError as error:
        raise EngineError("this user may not open Docker's socket") from error
    except (DockerException, RequestException, OSError) as error:
        raise EngineError("no Docker engine answers") from error
    return client


def _knock(host: str) -> None:
    """OSError where nobody listens; the SDK would leak its socket on finding out."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(host.removeprefix("unix://"))


def remove_images() -> list[str]:
    """Remove every image that kernfit made; their tags. EngineError if no engine answers."""
    client = connect()
    try:
        tags = [tag for image in client.images.list() for tag in image.tags if tag.startswith("kernfit-")]
        for tag in tags:
            client.images.remove(tag, force=True)
    except DockerException as error:
        raise EngineError(f"Docker: {str(error).splitlines()[0]}") from error
    return tags
