"""What a Linux machine calls its processor; each architecture has other words for it."""

from __future__ import annotations

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MODELS = ("model name", "Model Name", "cpu model", "uarch", "isa", "cpu")
"""x86 and ARM's 32 bits, LoongArch, MIPS, RISC-V (newer kernels, older), POWER."""
BOARDS = ("Hardware", "Model", "machine")


def here() -> str:
    """The name of this machine's processor."""
    return name_of(CPUINFO.read_text(encoding="utf-8"))


def name_of(cpuinfo: str) -> str:
    """The processor in the words of /proc/cpuinfo, with the board's where it tells them.

    Of processors that differ it is the last, on which kernels are timed. ARM's 64 bits give
    numbers alone (Main ID Register: implementer and part).
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if value.strip():
            fields[key.strip()] = value.strip()
    parts = [fields[key] for key in MODELS if key in fields][:1]
    if "model name" not in fields:
        parts = [part.partition("_")[0] if part.startswith("rv") else part for part in parts]
    if "CPU part" in fields:
        parts.append(f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}")
    mainframe = re.search(r"\bmachine = (\w+)", cpuinfo)
    if mainframe:
        parts.append(f"machine type {mainframe[1]}")
    parts += [fields[key] for key in BOARDS if key in fields][:1]
    return ", ".join(parts) or "unknown"
