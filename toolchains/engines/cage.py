"""What a step has that is kept from everything else, whatever keeps it: a container or bubblewrap."""

from __future__ import annotations

from types import MappingProxyType

MEMORY = 6 << 30
PROCESSES, FILES = 512, 4096
"""Of a step: its memory in bytes, swap included; processes and threads at once; open files of each."""
SCRATCH = 2 << 30
"""Bytes of a step's own `/tmp`, which vanishes with it."""
ENVIRONMENT = MappingProxyType(
    {
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",  # noqa: S108 - the cage's own, not the machine's
        "KERNFIT_ZIG_CACHE": "/tmp/zig",  # noqa: S108
    }
)
"""All that a step has beside PATH, PYTHONPATH, and KERNFIT_LIMITS if it is set."""
CODE = ("kernels", "toolchains")
"""The folders of this project that steps need."""
