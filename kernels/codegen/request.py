"""What the conductor asks of a code generation process."""

from __future__ import annotations

import msgspec

from kernels.plan import Kernel, Plan
from toolchains.target import Target


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kernels to compile for a target; `out` is relative to the request's folder.

    Where `driver` is the plan of a network, its `<library>_run` is compiled too.
    """

    target: Target
    kernels: tuple[Kernel, ...]
    out: str
    driver: Plan | None = None
