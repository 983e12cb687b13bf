"""What this machine gives: processors, memory, disk, and the limits that a shell or a container sets."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from kernels.errors import UsageError
from toolchains.cache import ROOT
from toolchains.limits import DEFAULTS, VARIABLE, limit

CODE_GENERATION_BYTES = 600 << 20
"""What a process needs in which TVM is loaded, measured at 450 MB, and one that judges."""
DISK_BYTES, OPEN_FILES, PROCESSES = 4 << 30, 256, 64
"""The least that a build with an image can do with: three images' disk, and so many for two jobs."""
GROUPS = Path("/sys/fs/cgroup")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that kernfit uses: whether it is here, and what brings it."""

    name: str
    state: Literal["here", "missing", "absent"]
    """`absent` is missing, but can be done without."""
    detail: str
    mend: str = ""


def processors() -> int:
    """Those that this process may use: by its affinity, and by a control group's share of time."""
    usable = len(os.sched_getaffinity(0))
    quota, _, period = _text(GROUPS / "cpu.max").partition(" ")
    if quota.isdecimal() and period:
        usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def available_bytes() -> int:
    """Memory that can be had without swapping: the machine's, or what a control group leaves."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        text = _text(GROUPS / most)
        if text.isdecimal():
            sizes.append(max(0, int(text) - int(_text(GROUPS / now) or 0)))
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        sizes.append(space)
    return min(sizes)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def limits() -> Iterator[Finding]:
    """Every limit that a build can meet, and the command that raises it."""
    yield Finding(name="processors", state="here", detail=f"{processors()}, so many jobs by default")
    memory, job = available_bytes(), CODE_GENERATION_BYTES
    yield _enough(
        "memory",
        memory > job,
        f"{memory >> 20:,} MiB to be had, of which a job takes {job >> 20} and more",
        "close other programs, or add swap; and use --jobs 1",
    )
    disk = shutil.disk_usage(ROOT).free
    yield _enough(
        "disk",
        disk > DISK_BYTES,
        f"{disk >> 30} GiB free for {ROOT / 'build'}",
        "`invoke clean --images`; an image takes 1.3 GB, a build 50 MB",
    )
    writable = os.access(ROOT, os.W_OK)
    yield _enough(
        "folder",
        writable,
        f"{ROOT} can{'' if writable else 'not'} be written",
        f"sudo chown -R $(id -un) {ROOT}",
    )
    yield _shell("open files", resource.RLIMIT_NOFILE, OPEN_FILES, "n", 4096)
    yield _shell("processes", resource.RLIMIT_NPROC, PROCESSES, "u", 4096)
    yield _shell("address space", resource.RLIMIT_AS, 8 << 30, "v", "unlimited")
    yield _shell("file size", resource.RLIMIT_FSIZE, 4 << 30, "f", "unlimited")
    yield _times()


def _enough(name: str, enough: bool, detail: str, mend: str) -> Finding:
    """What there is enough of, or else what mends it."""
    state: Literal["here", "missing"] = "here" if enough else "missing"
    return Finding(name=name, state=state, detail=detail, mend="" if enough else mend)


def _shell(name: str, number: int, least: int, flag: str, wanted: int | str) -> Finding:
    """A limit that `ulimit` sets."""
    soft, hard = resource.getrlimit(number)
    enough = soft == resource.RLIM_INFINITY or soft >= least
    told = "without a limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at most"
    may = hard == resource.RLIM_INFINITY or hard >= least
    mend = f"ulimit -{flag} {wanted}" if may else f"as root: prlimit --pid $$ --{FLAGS[flag]}={least}"
    return _enough(name, enough, told, mend)


FLAGS = {"n": "nofile", "u": "nproc", "v": "as", "f": "fsize"}
"""What prlimit(1) calls the flags of `ulimit`."""


def _times() -> Finding:
    try:
        changed = [name for name, (default, _) in DEFAULTS.items() if limit(name) != default]
    except UsageError as error:
        return Finding(name="time", state="missing", detail=str(error), mend=f"unset {VARIABLE}")
    words = ", ".join(f"{name} {limit(name):.0f} s" for name in changed)
    detail = f"{VARIABLE}: {words}" if changed else f"{len(DEFAULTS)} limits as they come"
    return Finding(name="time", state="here", detail=detail)
