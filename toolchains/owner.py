"""Who makes a file, a folder or a container: so that the next run can remove what a dead one left."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path


@cache
def here() -> str:
    """Names a boot of this machine, and in it the space of process numbers: eight hexadecimal digits."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return hashlib.sha256(boot + str(Path("/proc/self/ns/pid").readlink()).encode()).hexdigest()[:8]


def _start(process: int) -> str:
    """When a process began, in ticks since boot (proc(5), field 22); empty if it has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def owner() -> str:
    """A name of this process that no other has, before or after: numbers of processes come again."""
    return f"{here()}-{os.getpid()}-{_start(os.getpid())}"


def is_foreign(name: str) -> bool:
    """Whether the process of that name is one of another machine, container or boot."""
    return name.partition("-")[0] != here()


def is_gone(name: str) -> bool:
    """Whether the process of that name has ended for sure.

    Of another machine, container or boot nothing is known here, so its processes are not gone.
    """
    place, _, rest = name.partition("-")
    process, _, start = rest.partition("-")
    return place == here() and process.isdecimal() and _start(int(process)) != start
