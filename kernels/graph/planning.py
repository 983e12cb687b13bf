"""From a Program to the Plan for one target."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from kernels.errors import InputError
from kernels.operators import find_family
from kernels.operators.base import ElementWise, Planned, Scheduler
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
    return Plan(
        library=program.name,
        target=target.name,
        source=program.source,
        kernels=tuple(
            plan_kernel(
                target,
                (program.name, operators[0].group),
                bind(program, operators),
                records or {},
                winograd=winograd,
            )
            for operators in grouped(program.operators)
        ),
    )


def grouped(operators: Sequence[Operator]) -> list[list[Operator]]:
    """The operators of each kernel, in the order in which kernels can be called.

    A group's place is its last operator's: what is added to a result may be computed after
    the group's first operator.
    """
    groups: dict[str, list[Operator]] = {}
    last: dict[str, int] = {}
    for number, operator in enumerate(operators):
        key = operator.group or f"alone {number}"
        groups.setdefault(key, []).append(operator)
        last[key] = number
    return [groups[key] for key in sorted(groups, key=lambda key: last[key])]


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Operators that make one kernel, and its operands in the order of its signature.

    `tensors` are the program's names of the operands.
    """

    leading: Operator
    operands: tuple[Operand, ...]
    tensors: tuple[str, ...]
    steps: tuple[Step, ...]


def bind(program: Program, operators: Sequence[Operator]) -> Bound:
    """The operands of the kernel that these operators make: the first leads, the rest is fused."""
    leading, *fused = operators
    bound: list[tuple[Operand, str]] = []

    def operand(tensor: Tensor, name: str, role: str) -> None:
        bound.append(
            (
                Operand(name=name, role=role, shape=tensor.shape, layout=tensor.layout, dtype=tensor.dtype),
                tensor.name,
            )
        )

    *names, result = leading.operands
    for given, name in zip(map(program.tensor, leading.inputs), names, strict=True):
        operand(given, name, "weight" if given.role is Role.CONSTANT else "input")
    steps = []
    for operator in fused:
        name = ""
        for tensor in map(program.tensor, operator.inputs[1:]):
            role = "bias" if tensor.role is Role.CONSTANT else "residual"
            family = find_family(operator.kind)
            base = family.by_channel if role == "bias" and isinstance(family, ElementWise) else role
            name = _free(base, [each.name for each, _ in bound])
            operand(tensor, name, role)
        steps.append(Step(kind=operator.kind, attributes=operator.attributes, operand=name))
    operand(program.tensor(operators[-1].outputs[0]), result, "output")
    bound.sort(key=lambda pair: ORDER.index(pair[0].role))
    return Bound(
        leading=leading,
        operands=tuple(each for each, _ in bound),
        tensors=tuple(tensor for _, tensor in bound),
        steps=tuple(steps),
    )


def _free(base: str, names: Sequence[str]) -> str:
    """The name, or with the next number behind it if it is taken."""
    numbered = (f"{base}{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([base], numbered) if name not in names)


def plan_kernel(
    target: Target,
    names: tuple[str, str],
    bound: Bound,
    records: Mapping[str, Known],
    *,
    winograd: bool,
) -> Kernel:
    """The kernel, scheduled; `names` are the library's and its own."""
    library, name = names
    leading, operands, steps = bound.leading, bound.operands, bound.steps
    family = find_family(leading.kind)
    attributes = msgspec.convert(leading.attributes, family.attributes)
    shapes = {o.name: o.shape for o in operands}
    weights = frozenset(o.name for o in operands if o.role == "weight")
    line = signature(leading.kind, leading.attributes, operands, steps)
    direct, fast = records.get(line), records.get(line + WINOGRAD) if winograd else None
    scheduler = Scheduler(
        cpu=target.cpu,
        tuned=direct.record.schedule if direct else None,
        winograd=winograd,
        tuned_winograd=fast.record.schedule if fast else None,
    )
    try:
        planned = family.plan(attributes, shapes, weights, scheduler)
    except msgspec.ValidationError as error:
        raise InputError(f"a record of tuning for '{line}' has no schedule of it: {error}") from error
    schedule = msgspec.to_builtins(planned.schedule) if planned.schedule else {}
    known = fast if "m" in schedule else direct
    flops = family.flops(attributes, shapes) + len(steps) * operands[-1].elements
    return Kernel(
        name=name,
        symbol=f"{library}_{name}",
        kind=leading.kind,
        attributes=leading.attributes,
        epilogue=steps,
        operands=tuple(msgspec.structs.replace(o, packing=planned.packing.get(o.name)) for o in operands),
        schedule=schedule,
        arena_bytes=planned.arena_bytes,
        flops=flops,
        count=leading.count,
        in_place=_in_place(planned, operands, steps),
        record=known.file if known else "",
    )


def _in_place(planned: Planned, operands: Sequence[Operand], steps: Sequence[Step]) -> str:
    """The input whose buffer may be the output's own: the family's, or else the residual.

    The residual of an output that is written once is read just before, at the same place;
    but a heavy step may keep its arguments in the output's memory.
    """
    families = [find_family(step.kind) for step in steps]
    heavy = any(isinstance(family, ElementWise) and family.heavy for family in families)
    if planned.in_place or heavy or not planned.written_once:
        return planned.in_place
    elements = operands[-1].elements
    residuals = (o.name for o in operands if o.role == "residual" and o.elements == elements)
    return next(residuals, "")
