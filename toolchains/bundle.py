"""The offline bundle: one folder with all that a machine without a network needs.

DIR/SHA256SUMS      of all the rest
DIR/pins/           what everything was chosen by
DIR/wheels/         Python's packages, uv among them; `.ci/setup DIR` installs from here
DIR/packages/       Debian's packages of QEMU
DIR/images.tar      Docker's images of the chosen targets, where an engine answers
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kernels.errors import EngineError, InputError, MissingToolError, UsageError
from toolchains.archive import SUMS, file_sha256, read_sums, write_sums
from toolchains.cache import ROOT
from toolchains.engines.choose import choose_engine
from toolchains.engines.image import connect, ensure_image, image_tag, load_images
from toolchains.engines.pinned import PINS
from toolchains.limits import limit
from toolchains.pins import PROJECT, REQUIREMENTS
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.provision import fetch_emulators, provide_daemon, provide_emulators
from toolchains.target import Target

Say = Callable[[str], None]
IMAGES = "images.tar"
SETUP = ROOT / ".ci" / "setup"


def images(
    targets: Sequence[Target], engine: str, progress: Progress, *, anew: bool, export: str
) -> Iterator[str]:
    """Build the targets' images `anew`, `export` a bundle, or neither; gives what there is to say."""
    if not anew and not export:
        yield from map(image_tag, targets)
        return
    runs_on, why = choose_engine(engine)
    progress.say(why)
    try:
        for target in targets if anew else ():
            runs_on.prepare(target, progress.detail, anew=True)
        if export:
            write_bundle(Path(export), targets, progress.say, images=runs_on.name == "docker")
            yield f"{export}: whole; `.ci/setup {export}` and `invoke setup --offline {export}` use it"
    finally:
        runs_on.close()


# -- export --------------------------------------------------------------------------


def write_bundle(folder: Path, targets: Sequence[Target], say: Say, *, images: bool = True) -> None:
    """Write a bundle for these targets; UsageError if the folder holds something already."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--export {folder}: the folder is not empty")
    for part in ("pins", "wheels", "packages"):
        (folder / part).mkdir(parents=True)
    for path in (PINS, REQUIREMENTS, PROJECT):
        shutil.copyfile(path, folder / "pins" / path.name)
    say("bundle: Python's packages")
    _fetch_wheels(folder / "wheels")
    say("bundle: QEMU")
    reason = fetch_emulators(folder / "packages")
    if reason:
        raise EngineError(f"the bundle's QEMU could not be had: {reason}")
    if images:
        _save_images(folder / IMAGES, targets, say)
    write_sums(folder, {name: file_sha256(path) for name, path in _files(folder).items()})


def _fetch_wheels(folder: Path) -> None:
    """Of .ci/requirements.txt by their hashes, and the uv of .ci/setup, for this Python."""
    (uv,) = re.findall(r"uv==[0-9.]+", SETUP.read_text(encoding="utf-8"))
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    for words in (["--require-hashes", "-r", str(REQUIREMENTS)], [uv]):
        command = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        finished = run([*command, *words], timeout=limit("bundle"), cwd=folder)
        if finished.status != 0:
            raise EngineError(f"pip could not download the wheels: {finished.output}")


def _save_images(path: Path, targets: Sequence[Target], say: Say) -> None:
    if shutil.which("docker") is None:
        raise MissingToolError(
            "the command `docker` saves images, and is missing: `invoke setup` brings it"
        )
    client = connect(limit("bundle"))
    tags = [ensure_image(client, target, say) for target in targets]
    client.close()
    say(f"bundle: {len(tags)} image(s)")
    finished = run(["docker", "save", "--output", str(path), *tags], timeout=limit("bundle"))
    if finished.status != 0:
        raise EngineError(f"docker save failed: {finished.output}")


# -- use -----------------------------------------------------------------------------


def no_bundle(folder: Path) -> InputError:
    """What is wrong with a folder that has no sums."""
    return InputError(f"{folder}: not a bundle of `invoke images --export`: no {SUMS} in it")


def check(folder: Path) -> None:
    """InputError that names the first file that is not what the bundle's list says."""
    try:
        listed = read_sums(folder)
    except OSError as error:
        raise no_bundle(folder) from error
    except ValueError as error:
        raise InputError(f"{folder / SUMS} is damaged ({error}); copy the bundle again") from error
    present = _files(folder)
    for name in sorted(present.keys() | listed.keys()):
        if name not in present:
            raise InputError(f"{folder / name} is missing; copy the bundle again")
        if name not in listed:
            raise InputError(f"{folder / name} is not in {SUMS}; a bundle holds nothing else")
        if file_sha256(present[name]) != listed[name]:
            raise InputError(f"{folder / name} is damaged: {SUMS} has another hash; copy the bundle again")


def provide(folder: Path, say: Say) -> None:
    """Set this machine up from a bundle, without a network; InputError if it is damaged."""
    check(folder)
    say(f"bundle: {folder} is whole")
    if (folder / "pins" / PINS.name).read_bytes() != PINS.read_bytes():
        raise InputError(f"{folder} was exported by another version of kernfit: its pins differ from ours")
    provide_emulators(say, sorted((folder / "packages").glob("*.deb")))
    if not (folder / IMAGES).exists():
        say("Docker: the bundle has no images; the local engine will be used")
    elif provide_daemon(say):
        for tag in load_images(folder / IMAGES, limit("bundle")):
            say(f"Docker: {tag} loaded")


def _files(folder: Path) -> dict[str, Path]:
    """All files of a bundle but its sums, by their path within it."""
    found = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): path for path in found if path != folder / SUMS}
