"""The newest versions of Debian's packages and of the base, as `invoke pins --update` pins them."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from docker.errors import DockerException

from toolchains.engines.base import Say, ensure_base
from toolchains.engines.image import arguments
from toolchains.engines.pinned import OLD_SUITE, SUITE, ImagePins, versions_of
from toolchains.target import all_targets

STEPS = "ca-certificates python3 python3-pip qemu-user"
OLD = "qemu-user"
INSTALLED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", re.MULTILINE)
"""A line of `apt-get --simulate install`: the package, what it replaces, and the version."""


def renewed(client: Any, pins: ImagePins, on_line: Say) -> ImagePins:
    """The pins with the newest base that a registry has, and what Debian's archive has for it."""
    repository = pins.base.split("@")[0]
    try:
        base = f"{repository}@{client.images.get_registry_data(repository).id}"
    except DockerException:
        on_line(f"no registry answers: the base stays {pins.base}")
        base = pins.base
    pins = msgspec.structs.replace(pins, base=base)
    image = ensure_base(client, on_line)
    wanted = sorted({STEPS, *(arguments(target)["PACKAGES"] for target in all_targets().values())})
    simulate = "apt-get --simulate install -y --no-install-recommends"
    script = "; ".join(
        ["set -e", "apt-get update -q >&2", "dpkg-query -W", *(f"{simulate} {words}" for words in wanted)]
    )
    told = _run(client, image, script)
    present, _, planned = told.partition("Reading package lists")
    versions = {**versions_of(present), **dict(INSTALLED.findall(planned))}
    old = _run(
        client,
        image,
        f"sed -i s/{SUITE}/{OLD_SUITE}/g $(find /etc/apt -name '*.list' -o -name '*.sources'); "
        f"apt-get update -q >&2; {simulate} -o Dir::State::status=/dev/null {OLD}",
    )
    architecture = _run(client, image, "dpkg --print-architecture").strip()
    debian = {SUITE: versions, OLD_SUITE: dict(INSTALLED.findall(old))}
    return msgspec.structs.replace(pins, debian=debian, architecture=architecture)


def _run(client: Any, image: str, script: str) -> str:
    told: bytes = client.containers.run(image, ["sh", "-ec", script], remove=True, stderr=False)
    return told.decode()
