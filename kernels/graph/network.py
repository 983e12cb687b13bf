"""From a Network to its Plan for one target: kernels, calls, arena, and where weights lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from kernels.errors import InputError
from kernels.graph.lifetimes import Pending, blocks_of, scratch_name
from kernels.graph.memory import arrange, lower_bound
from kernels.graph.planning import bind, grouped, plan_kernel
from kernels.graph.storage import Storage, store
from kernels.graph.weights import lay_weights, layout_of, with_layout
from kernels.names import identifiers, members
from kernels.plan import Call, Kernel, NetworkPlan, Place, Plan, Port, WeightsMode
from kernels.program import Network, Program, Role
from kernels.tuning import Known
from toolchains.target import Target

ADDRESSABLE = {32: (1 << 31) - 1, 64: (1 << 63) - 1}
"""Bytes of one block of memory by the width of a pointer, with a sign to spare."""
LINKABLE = (1 << 31) - (1 << 26)
"""Bytes of weights that code can reach by an offset of 32 bits, with room for the code."""


def plan_network(
    network: Network,
    target: Target,
    records: Mapping[str, Known] | None = None,
    *,
    weights_mode: WeightsMode = "embed",
    max_arena: int | None = None,
    winograd: bool = False,
) -> Plan:
    """The plan of a whole network. Kernels that compute the same are one, called many times.

    InputError where the arena is over `max_arena` bytes, or where the target cannot address
    what the network needs.
    """
    program = network.program
    storage = store(program)
    steps = _steps(program, storage, target, records or {}, winograd=winograd)
    blocks, shared = blocks_of(program, storage, steps)
    arrangement = arrange(blocks)
    offsets, weights = lay_weights(
        network,
        (
            (storage.owner[tensor], step.kernel, operand)
            for step in steps
            for tensor, operand in zip(step.tensors, step.kernel.operands, strict=True)
            if storage.owner[tensor] in storage.constants
        ),
        by_value=weights_mode == "embed",
    )
    kernels = {step.kernel.name: step.kernel for step in steps}
    weights_bytes = weights[-1].offset + weights[-1].bytes if weights else 0
    layout = ""
    if weights and weights_mode != "embed":
        weights_bytes = with_layout(weights_bytes)
        layout = layout_of(program, kernels.values(), weights, target.endianness)

    def place(tensor: str, kernel: str, operand: str) -> Place:
        owner = storage.owner[tensor]
        if owner in storage.constants:
            return Place(home="weights", offset=offsets[owner, kernel, operand])
        within = storage.offsets.get(tensor, 0)
        if owner in storage.fixed:
            return msgspec.structs.replace(storage.fixed[owner], offset=within)
        return Place(home="arena", offset=arrangement.offsets[shared[owner]] + within)

    calls = tuple(
        Call(
            node=step.node,
            kernel=step.kernel.name,
            tensors=step.tensors,
            places=tuple(
                place(tensor, step.kernel.name, operand.name)
                for tensor, operand in zip(step.tensors, step.kernel.operands, strict=True)
            ),
            scratch=arrangement.offsets.get(scratch_name(number)),
        )
        for number, step in enumerate(steps)
    )
    planned = NetworkPlan(
        inputs=_ports(program, Role.INPUT),
        outputs=_ports(program, Role.OUTPUT),
        calls=calls,
        arena_bytes=arrangement.bytes,
        live_bytes=lower_bound(blocks),
        weights=tuple(weights),
        weights_bytes=weights_bytes,
        weights_mode=weights_mode,
        weights_layout=layout,
        dims=program.dims,
    )
    _limit(program.name, target, planned, max_arena)
    counts = Counter(call.kernel for call in calls)
    return Plan(
        library=program.name,
        target=target.name,
        source=program.source,
        kernels=tuple(
            msgspec.structs.replace(kernel, count=counts[name]) for name, kernel in kernels.items()
        ),
        network=planned,
    )


def _steps(
    program: Program,
    storage: Storage,
    target: Target,
    records: Mapping[str, Known],
    *,
    winograd: bool,
) -> list[Pending]:
    """Every call with its kernel: one for all that compute the same, named after the first."""
    steps: list[Pending] = []
    kernels: dict[bytes, Kernel] = {}
    groups = grouped([operator for operator in program.operators if not storage.is_alias(operator)])
    labels = [operators[0].group or operators[0].name for operators in groups]
    first = {label: number for number, label in reversed(list(enumerate(labels)))}
    labels = [label if first[label] == n else f"{label} {n}" for n, label in enumerate(labels)]
    names = identifiers(labels)
    for label, operators in zip(labels, groups, strict=True):
        bound = bind(program, operators)
        leading = bound.leading
        alike = msgspec.json.encode((leading.kind, leading.attributes, bound.operands, bound.steps))
        if alike not in kernels:
            try:
                kernels[alike] = plan_kernel(
                    target, (program.name, names[label]), bound, records, winograd=winograd
                )
            except InputError as error:
                raise InputError(f"node '{leading.name}' ({leading.kind}): {error}") from error
        steps.append(Pending(node=leading.name, kernel=kernels[alike], tensors=bound.tensors))
    return steps


def _ports(program: Program, role: Role) -> tuple[Port, ...]:
    tensors = [tensor for tensor in program.tensors if tensor.role is role]
    names = members([tensor.name for tensor in tensors], f"the {role}s")
    return tuple(
        Port(
            name=tensor.name,
            identifier=names[tensor.name],
            shape=tensor.shape,
            layout=tensor.layout,
            dtype=tensor.dtype,
        )
        for tensor in tensors
    )


def _limit(library: str, target: Target, planned: NetworkPlan, max_arena: int | None) -> None:
    if max_arena is not None and planned.arena_bytes > max_arena:
        raise InputError(
            f"{library} for {target.name} needs an arena of {planned.arena_bytes} bytes, over the limit of "
            f"{max_arena}; its tensors alone take {planned.live_bytes} at one time"
        )
    if planned.weights_mode != "file" and planned.weights_bytes > LINKABLE:
        raise InputError(
            f"{library} has weights of {planned.weights_bytes} bytes, more than can be linked; "
            "use --weights file"
        )
    for what, size in (("an arena", planned.arena_bytes), ("weights", planned.weights_bytes)):
        if size > ADDRESSABLE[target.pointer_bits]:
            raise InputError(f"{library} needs {what} of {size} bytes, more than {target.name} can address")
