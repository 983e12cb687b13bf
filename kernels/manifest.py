"""manifest.json: what is in a library; it goes into the archive, so the source alone decides it."""

from __future__ import annotations

from typing import Literal

import msgspec

from kernels.codegen.driver import run_symbol
from kernels.codegen.interface import ABI_VERSION
from kernels.elements import Order
from kernels.plan import (
    Call,
    Identifier,
    Kernel,
    NetworkPlan,
    Operand,
    Plan,
    Port,
    Step,
    Tuned,
    Weight,
    WeightsMode,
)
from kernels.program import Attribute
from toolchains.target import Target


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was read from a kernel's object file, in bytes.

    Beside its `stack_bytes`, so many `stack_vectors` lie on the stack: vector registers of the
    length that the running processor gives them.
    """

    code_bytes: int
    constant_bytes: int
    stack_bytes: int
    stack_vectors: int = 0


class ManifestKernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel: what it computes, how, and what it takes.

    `in_place` names the one input, if any, whose buffer may be the output's own.
    Where its schedule was tuned, `record` is the name of the file of records that it is from.
    Its stack is `stack_bytes`, and `stack_vectors` registers of the running processor's vectors.
    """

    name: Identifier
    symbol: Identifier
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
    in_place: str = ""
    record: str = ""
    stack_vectors: int = 0


class ManifestNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole network: its tensors, the calls of `symbol` in order, and its memory.

    `code_bytes`, `stack_bytes` and `stack_vectors` are those of `symbol` alone, without its
    kernels. `weights` tells where each constant lies in them, packed as its kernel's operand says.
    `weights_sha256` is of the values that the library was built with. Where they are not in it,
    others of the same `weights_layout` may take their place (`python -m kernels.pack`).
    `dims` are the sizes that the model's open dimensions were given, and the values of inputs that
    the library has not, by their names.
    """

    symbol: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calls: tuple[Call, ...]
    code_bytes: int
    stack_bytes: int
    arena_bytes: int
    live_bytes: int
    weights_mode: WeightsMode
    weights_bytes: int
    weights_sha256: str
    weights: tuple[Weight, ...]
    weights_layout: str = ""
    stack_vectors: int = 0
    dims: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A library: names, versions of what made it, its kernels, and the network if it is one.

    `abi` is the version of its C ABI, 0 where a kernfit before such versions made it.
    """

    library: Identifier
    target: str
    endianness: Literal["little", "big"]
    source: str
    versions: dict[str, str]
    kernels: tuple[ManifestKernel, ...]
    network: ManifestNetwork | None = None
    abi: int = 0

    @property
    def byte_order(self) -> Order:
        """NumPy's character for the byte order of the library's target."""
        return "<" if self.endianness == "little" else ">"


def manifest_of(
    plan: Plan,
    target: Target,
    measured: dict[str, Measured],
    versions: dict[str, str],
    weights_sha256: str = "",
) -> Manifest:
    """The manifest of a plan whose objects, by symbol, measured so."""
    return Manifest(
        library=plan.library,
        target=plan.target,
        endianness=target.endianness,
        source=plan.source,
        versions=versions,
        kernels=tuple(_entry(kernel, measured[kernel.symbol]) for kernel in plan.kernels),
        network=_network(plan, plan.network, measured, weights_sha256) if plan.network else None,
        abi=ABI_VERSION,
    )


def _network(
    plan: Plan, network: NetworkPlan, measured: dict[str, Measured], weights_sha256: str
) -> ManifestNetwork:
    symbol = run_symbol(plan.library)
    return ManifestNetwork(
        symbol=symbol,
        inputs=network.inputs,
        outputs=network.outputs,
        calls=network.calls,
        code_bytes=measured[symbol].code_bytes,
        stack_bytes=measured[symbol].stack_bytes,
        stack_vectors=measured[symbol].stack_vectors,
        arena_bytes=network.arena_bytes,
        live_bytes=network.live_bytes,
        weights_mode=network.weights_mode,
        weights_bytes=network.weights_bytes,
        weights_sha256=weights_sha256,
        weights=network.weights,
        weights_layout=network.weights_layout,
        dims=network.dims,
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
        in_place=kernel.in_place,
        record=kernel.record,
        stack_vectors=measured.stack_vectors,
    )
