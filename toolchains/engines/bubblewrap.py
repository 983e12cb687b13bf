"""The local engine in a cage without Docker: bubblewrap (bwrap(1)) keeps each step to its job's folder."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from kernels.errors import EngineError
from toolchains.emulators import find_emulator, find_other_emulator
from toolchains.engines import cage
from toolchains.engines.local import ROOT, LocalEngine
from toolchains.limits import limit, passed_on
from toolchains.process import run
from toolchains.target import Target

PROGRAM = "bwrap"
SEEN = ("/usr", "/etc/alternatives", "/etc/ld.so.cache")
"""What of the machine a step may read, beside Python, its packages and the emulators."""
LINKS = ("bin", "lib", "lib32", "lib64", "sbin")
"""Folders of `/` that are links to those in `/usr`, or are seen as they are."""
FIRST_USER = 1 << 30
"""Where this process is root's, each folder's steps are a user's of their own, from this number on: the
kernel counts processes by user, and none of root's (setrlimit(2), RLIMIT_NPROC)."""
ALONE = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
"""Namespaces of a step's own (namespaces(7)); an ordinary user needs one for users as well."""

NEEDED = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP")
"""What root needs to become that user, and loses by it."""


def is_here() -> bool:
    """Whether bubblewrap is installed."""
    return shutil.which(PROGRAM) is not None


class BubblewrapEngine(LocalEngine):
    """Steps of the local engine without network, rights, or anything to write but their folder."""

    name = "bubblewrap"

    def __init__(self) -> None:
        """EngineError if there is no bubblewrap, or if it may not make namespaces here."""
        super().__init__()
        self._folders: dict[Path, int] = {}
        self._counting = threading.Lock()
        if not is_here():
            raise EngineError(f"{PROGRAM} is missing; `invoke setup` brings it, or use --engine local")
        tried = run([*_walls(Path.cwd(), (), self._user(Path.cwd())), "true"], timeout=limit("probe"))
        if tried.status != 0:
            why = tried.output.splitlines()[-1:] or [f"status {tried.status}"]
            raise EngineError(f"bubblewrap makes no cage here: {why[0]}; use --engine docker, or local")

    def _begin(self, module: str, request: Path, target: Target) -> tuple[list[str], dict[str, str]]:
        """The command of a step in its cage, and its environment."""
        folder = request.parent.resolve()
        user = self._user(folder)
        if user is not None:
            os.chown(folder, user, user)
        emulators = filter(None, (find_emulator(target.qemu), find_other_emulator(target.qemu)))
        programs = [str(each.path.parent) for each in emulators]
        path = os.pathsep.join(dict.fromkeys([*programs, "/usr/bin", "/bin"]))
        step = [sys.executable, "-m", "toolchains.step", module, str(folder / request.name)]
        return [*_walls(folder, programs, user), *step], {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            **cage.ENVIRONMENT,
            **passed_on(),
        }

    def _user(self, folder: Path) -> int | None:
        """Whose the steps of a folder are, if not this process's own user's."""
        if os.getuid() != 0:
            return None
        with self._counting:
            number = self._folders.setdefault(folder, len(self._folders))
        return FIRST_USER + (os.getpid() << 8 | number & 255)


def _walls(folder: Path, programs: Iterable[str], user: int | None) -> list[str]:
    """The words before a command that may write in `folder` alone, and sees these programs' folders."""
    return [
        PROGRAM,
        *ALONE,
        *(("--unshare-user",) if user is None else ()),
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        *(() if user is None else NEEDED),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", str(cage.SCRATCH), "--perms", "1777", "--tmpfs", cage.ENVIRONMENT["HOME"]),
        *_seen(folder, programs),
        *("--remount-ro", "/"),
        *("--chdir", str(ROOT)),
        "--",
        "prlimit",
        f"--nproc={cage.PROCESSES}",
        f"--nofile={cage.FILES}",
        f"--data={cage.MEMORY}",
        "--core=0",
        *(() if user is None else _becoming(str(user))),
    ]


def _becoming(user: str) -> list[str]:
    ids = ["--reuid", user, "--regid", user, "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps", "-all", "--bounding-set", "-all"]


def _seen(folder: Path, programs: Iterable[str]) -> Iterator[str]:
    """Mounts, each at its own place; of folders above them there is nothing but the name."""
    for name in LINKS:
        place = Path("/") / name
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            yield from ("--ro-bind", str(place), str(place))
    code = [str(ROOT / name) for name in cage.CODE]
    read = list(dict.fromkeys((*SEEN, sys.base_prefix, sys.prefix, *code, *programs)))
    above = {parent for path in (*read, str(folder)) for parent in Path(path).parents if parent.name}
    for parent in sorted(above - {Path(path) for path in (*read, cage.ENVIRONMENT["HOME"])}):
        yield from ("--perms", "0755", "--dir", str(parent))
    for path in read:
        yield from ("--ro-bind-try", path, path)
    yield from ("--bind", str(folder), str(folder))
