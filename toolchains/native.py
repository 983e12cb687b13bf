"""What this machine runs itself: its targets, of which the one with the widest vectors is its own."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from kernels.errors import UsageError
from toolchains.processor import CPUINFO
from toolchains.target import Target, all_targets


def runs_here(target: Target) -> bool:
    """Whether this machine runs the target's code itself, so that time can be measured."""
    return not why_not(target)


def why_not(target: Target) -> str:
    """Why this machine does not run the target's code itself; empty if it does."""
    here, wanted = platform.machine(), target.native.machine if target.native else target.name
    if here != wanted:
        return f"this machine is {here}, not {wanted}"
    absent = ", ".join(sorted(lacking(target)))
    return f"this machine's processor lacks {absent}" if absent else ""


def lacking(target: Target) -> set[str]:
    """The features of the processor that the target's code needs and this machine does not name."""
    wanted = set(target.native.flags) if target.native else set()
    return wanted - features()


def features(information: Path = CPUINFO) -> set[str]:
    """What the processor can do, in the words of Linux."""
    text = information.read_text(encoding="utf-8")
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split() if found else ())


def own_target() -> str:
    """The name of the target with the widest vectors that this machine runs; UsageError if none."""
    found = [target for target in all_targets().values() if runs_here(target)]
    if not found:
        raise UsageError("this machine runs no target itself: say --arch, and instructions are counted")
    return max(found, key=lambda target: target.cpu.vector_bits).name
