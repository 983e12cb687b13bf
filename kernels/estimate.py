"""What a network will need on a target, from its plan alone: nothing is generated for it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kernels.errors import InputError
from kernels.graph.network import plan_network
from kernels.program import Network
from kernels.tuning import read_records
from toolchains.target import Target


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Kernels, calls, operations of all calls, and bytes of packed weights and of the arena.

    `live_bytes` is the largest sum of tensors that are live at once: no arena is smaller.
    Where the network cannot be planned for the target, `reason` says why.
    """

    target: str
    kernels: int = 0
    calls: int = 0
    flops: int = 0
    weights_bytes: int = 0
    arena_bytes: int = 0
    live_bytes: int = 0
    reason: str = ""


def estimates(network: Network, targets: Iterable[Target]) -> tuple[Estimate, ...]:
    """One for each target; weights and arena are those that a build would make."""
    return tuple(_estimate(network, target) for target in targets)


def _estimate(network: Network, target: Target) -> Estimate:
    try:
        plan = plan_network(network, target, read_records(target.name, ()))
    except InputError as error:
        return Estimate(target=target.name, reason=str(error))
    planned = plan.network
    if planned is None:
        raise TypeError(f"{plan.library} was planned as a listing")
    return Estimate(
        target=target.name,
        kernels=len(plan.kernels),
        calls=len(planned.calls),
        flops=sum(kernel.flops * kernel.count for kernel in plan.kernels),
        weights_bytes=planned.weights_bytes,
        arena_bytes=planned.arena_bytes,
        live_bytes=planned.live_bytes,
    )
