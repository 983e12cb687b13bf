"""`python -m toolchains.step MODULE REQUEST.json`: a step, which ends with its parent and tells its memory.

A parent that is killed outright cannot end its children: so the kernel tells a step of it, and it
ends with all that it started. Code in a compiler's library is not interrupted: the step then ends
once that returns.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import runpy
import signal
import sys
from types import FrameType

from toolchains.owner import is_gone

PARENT = "KERNFIT_PARENT"
"""Of the environment: the owner's name (`toolchains.owner`) of the process that starts a step."""
PEAK = "kernfit: peak memory "
"""Begins the last line of a step, which a number of bytes ends."""
PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""


def peak_of(line: str) -> int | None:
    """Bytes, if this is the line that tells of them: the most that the step or a child of it held."""
    return int(line.removeprefix(PEAK)) if line.startswith(PEAK) else None


def _orphaned(_number: int, _frame: FrameType | None) -> None:
    os.killpg(0, signal.SIGKILL)


def _tell() -> None:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(kind).ru_maxrss for kind in kinds) << 10
    sys.stdout.write(f"{PEAK}{peak}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if PARENT in os.environ:
        signal.signal(signal.SIGHUP, _orphaned)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
        if is_gone(os.environ[PARENT]):
            raise SystemExit(1)
    atexit.register(_tell)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
