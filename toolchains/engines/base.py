"""The base of images: Debian 13 pulled by its digest, or made from Debian's own packages."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound

from kernels.errors import EngineError, MissingToolError
from toolchains.cache import digest
from toolchains.engines.pinned import SUITE, image_pins
from toolchains.engines.talking import talking, within
from toolchains.limits import limit
from toolchains.process import run

CERTIFICATES = Path("/usr/local/share/ca-certificates")

Say = Callable[[str], None]


def ensure_base(client: Any, on_line: Say) -> str:
    """A Debian 13 to build upon: pulled by digest, or made here where no registry answers."""
    pulled = image_pins().base
    for name in (pulled, _bootstrapped_tag()):
        try:
            client.images.get(name)
        except (ImageNotFound, APIError):
            continue
        return name
    on_line(f"pulling {pulled}")
    reason = _pull(client)
    if not reason:
        return pulled
    on_line(f"no registry answers ({reason}): making the base image from Debian's packages")
    return _bootstrap(client, on_line)


def _pull(client: Any) -> str:
    """Why the base cannot be pulled; empty once it has been."""

    def pull() -> None:
        with talking("pulling"):
            client.images.pull(image_pins().base)

    try:
        within("pull", "the pulling of the base image", pull)
    except EngineError as error:
        return str(error)[:200]
    return ""


def _bootstrapped_tag() -> str:
    return f"kernfit-base:{digest(SUITE, _sources(), _certificates())[:16]}"


def _sources() -> list[str]:
    """Apt source lines for the suite from wherever this machine gets its Debian packages."""
    if shutil.which("apt-get") is None:
        return []
    targets = run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"], timeout=limit("probe")
    ).output
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
        listed = Path(folder) / "sources.list"
        listed.write_text("\n".join(sources), encoding="utf-8")
        with listed.open("rb") as stream:
            finished = run(
                [word for word in command if word],
                timeout=limit("bootstrap"),
                stdin=stream,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(image_pins().epoch)},
                on_line=on_line,
            )
        if finished.status != 0:
            raise EngineError(f"mmdebstrap failed: {finished.output}")
        repository, version = tag.split(":")
        with tree.open("rb") as stream:
            client.api.import_image_from_data(stream, repository=repository, tag=version)
    return tag


def _acquire_options() -> list[str]:
    """What this machine told apt about downloading, such as a proxy."""
    dump = run(["apt-config", "dump"], timeout=limit("probe")).output
    kept = re.findall(r'^(Acquire::(?:http|https|Retries)\S*) "([^"]+)";$', dump, re.MULTILINE)
    return [f'--aptopt={name} "{value}"' for name, value in kept]
