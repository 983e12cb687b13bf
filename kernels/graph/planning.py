"""From a Program to the Plan for one target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kernels.operators import find_family
from kernels.operators.base import Scheduler
from kernels.plan import Kernel, Operand, Plan, Step
from kernels.program import Operator, Program, Role, Tensor
from kernels.tuning import WINOGRAD, Known, signature
from toolchains.target import Target

ORDER = ("input", "weight", "bias", "residual", "output")
"""Roles in the order of a kernel's signature."""


def plan(
    program: Program,
    target: Target,
    records: Mapping[str, Known] | None = None,
    *,
    winograd: bool = False,
) -> Plan:
    """Every group of operators as one kernel, scheduled for the target: by a record, or the model.

    `winograd` allows algorithms that are faster and less accurate.
    """
    groups: dict[str, list[Operator]] = {}
    for operator in program.operators:
        groups.setdefault(operator.group or operator.name, []).append(operator)
    return Plan(
        library=program.name,
        target=target.name,
        source=program.source,
        kernels=tuple(
            _kernel(program, target, name, operators, records or {}, winograd=winograd)
            for name, operators in groups.items()
        ),
    )


def _kernel(
    program: Program,
    target: Target,
    name: str,
    operators: Sequence[Operator],
    records: Mapping[str, Known],
    *,
    winograd: bool,
) -> Kernel:
    leading, *fused = operators
    family = find_family(leading.kind)
    operands: list[Operand] = []

    def operand(tensor: Tensor, short: str, role: str) -> None:
        operands.append(
            Operand(name=short, role=role, shape=tensor.shape, layout=tensor.layout, dtype=tensor.dtype)
        )

    *names, result = leading.operands
    for given, short in zip(map(program.tensor, leading.inputs), names, strict=True):
        operand(given, short, "weight" if given.role is Role.CONSTANT else "input")
    steps = []
    for operator in fused:
        second = [program.tensor(given) for given in operator.inputs[1:]]
        for tensor in second:
            role = "bias" if tensor.role is Role.CONSTANT else "residual"
            operand(tensor, role, role)
        steps.append(
            Step(
                kind=operator.kind,
                attributes=operator.attributes,
                operand=operands[-1].name if second else "",
            )
        )
    operand(program.tensor(operators[-1].outputs[0]), result, "output")

    attributes = msgspec.convert(leading.attributes, family.attributes)
    shapes = {o.name: o.shape for o in operands}
    weights = frozenset(o.name for o in operands if o.role == "weight")
    operands.sort(key=lambda o: ORDER.index(o.role))
    line = signature(leading.kind, leading.attributes, operands, steps)
    direct, fast = records.get(line), records.get(line + WINOGRAD) if winograd else None
    scheduler = Scheduler(
        cpu=target.cpu,
        tuned=direct.record.schedule if direct else None,
        winograd=winograd,
        tuned_winograd=fast.record.schedule if fast else None,
    )
    planned = family.plan(attributes, shapes, weights, scheduler)
    schedule = msgspec.to_builtins(planned.schedule) if planned.schedule else {}
    known = fast if "m" in schedule else direct
    flops = family.flops(attributes, shapes) + len(steps) * operands[-1].elements
    return Kernel(
        name=name,
        symbol=f"{program.name}_{name}",
        kind=leading.kind,
        attributes=leading.attributes,
        epilogue=tuple(steps),
        operands=tuple(msgspec.structs.replace(o, packing=planned.packing.get(o.name)) for o in operands),
        schedule=schedule,
        arena_bytes=planned.arena_bytes,
        flops=flops,
        count=leading.count,
        record=known.file if known else "",
    )
