"""manifest.json: what is in a library; it goes into the archive, so the source alone decides it."""

from __future__ import annotations

from typing import Literal

import msgspec

from kernels.plan import Kernel, Operand, Plan, Step, Tuned
from kernels.program import Attribute
from toolchains.target import Target


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was read from a kernel's object file, in bytes."""

    code_bytes: int
    constant_bytes: int
    stack_bytes: int


class ManifestKernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel: what it computes, how, and what it takes.

    Where its schedule was tuned, `record` is the name of the file of records that it is from.
    """

    name: str
    symbol: str
    operator: str
    attributes: dict[str, Attribute]
    fused: tuple[Step, ...]
    operands: tuple[Operand, ...]
    count: int
    flops: int
    code_bytes: int
    constant_bytes: int
    packed_weight_bytes: int
    arena_bytes: int
    stack_bytes: int
    schedule: Tuned
    schedule_source: Literal["model", "tuned"]
    record: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A library: names, versions of what made it, and its kernels."""

    library: str
    target: str
    endianness: Literal["little", "big"]
    source: str
    versions: dict[str, str]
    kernels: tuple[ManifestKernel, ...]


def manifest_of(
    plan: Plan, target: Target, measured: dict[str, Measured], versions: dict[str, str]
) -> Manifest:
    """The manifest of a plan whose objects, by symbol, measured so."""
    return Manifest(
        library=plan.library,
        target=plan.target,
        endianness=target.endianness,
        source=plan.source,
        versions=versions,
        kernels=tuple(_entry(kernel, measured[kernel.symbol]) for kernel in plan.kernels),
    )


def _entry(kernel: Kernel, measured: Measured) -> ManifestKernel:
    return ManifestKernel(
        name=kernel.name,
        symbol=kernel.symbol,
        operator=kernel.kind,
        attributes=kernel.attributes,
        fused=kernel.epilogue,
        operands=kernel.operands,
        count=kernel.count,
        flops=kernel.flops,
        code_bytes=measured.code_bytes,
        constant_bytes=measured.constant_bytes,
        packed_weight_bytes=sum(o.bytes for o in kernel.operands if o.packing),
        arena_bytes=kernel.arena_bytes,
        stack_bytes=measured.stack_bytes,
        schedule=kernel.schedule,
        schedule_source="tuned" if kernel.record else "model",
        record=kernel.record,
    )
