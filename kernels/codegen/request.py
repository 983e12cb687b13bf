"""What the conductor asks of a code generation process."""

from __future__ import annotations

import msgspec

from kernels.plan import Kernel
from toolchains.target import Target


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kernels to compile for a target; `out` is relative to the request's folder."""

    target: Target
    kernels: tuple[Kernel, ...]
    out: str
