"""What the conductor asks of a code generation process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from kernels.errors import InputError
from kernels.plan import Kernel, Plan
from toolchains.target import Target

Asked = TypeVar("Asked")
Folder = Annotated[str, msgspec.Meta(pattern=r"^(\.|[A-Za-z0-9_-]+)$")]
"""A folder in the request's own, or that itself."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kernels to compile for a target; `out` is relative to the request's folder.

    Where `driver` is the plan of a network, its `<library>_run` is compiled too.
    """

    target: Target
    kernels: tuple[Kernel, ...]
    out: Folder
    driver: Plan | None = None


def read_request(path: Path, kind: type[Asked]) -> Asked:
    """The request of a step in a file; InputError if it is none.

    Names that become those of files and symbols are identifiers (`kernels.plan.Identifier`).
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path.name}: no {kind.__name__} of kernfit: {error}") from error
