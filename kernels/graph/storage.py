"""Which tensors of a network are the same memory, and whose memory it is."""

from __future__ import annotations

import msgspec

from kernels.plan import Place
from kernels.program import Operator, Program, Role

RESHAPE = "reshape"
"""The kind of operator that gives the same bytes another shape."""


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """`owner` names for each tensor the one whose memory it shares, itself as a rule.

    Owners that are the network's inputs or lie in one of its outputs have a fixed place;
    constants are among the weights; all others are in the arena. `copies` are the names of
    the reshapes that move bytes all the same.
    """

    owner: dict[str, str]
    fixed: dict[str, Place]
    constants: frozenset[str]
    copies: frozenset[str]

    def in_arena(self, tensor: str) -> bool:
        """Whether a tensor's memory has to be planned."""
        owner = self.owner[tensor]
        return owner not in self.fixed and owner not in self.constants

    def is_alias(self, operator: Operator) -> bool:
        """Whether an operator needs no kernel."""
        return operator.kind == RESHAPE and operator.name not in self.copies


def store(program: Program) -> Storage:
    """The memory of each tensor.

    What a reshape makes an output of is written to that output at once, by the kernel that
    computes it; but an input, a constant and another output are copied.
    """
    owner = {tensor.name: tensor.name for tensor in program.tensors}
    fixed: dict[str, Place] = {}
    outputs: dict[str, Place] = {}
    counts = {Role.INPUT: 0, Role.OUTPUT: 0}
    for tensor in program.tensors:
        if tensor.role is Role.INPUT:
            fixed[tensor.name] = Place(home="input", number=counts[Role.INPUT])
        elif tensor.role is Role.OUTPUT:
            outputs[tensor.name] = Place(home="output", number=counts[Role.OUTPUT])
        if tensor.role in counts:
            counts[tensor.role] += 1
    constants = frozenset(tensor.name for tensor in program.tensors if tensor.role is Role.CONSTANT)
    reshapes = [operator for operator in program.operators if operator.kind == RESHAPE]
    made = {operator.outputs[0] for operator in reshapes}
    fixed |= {name: place for name, place in outputs.items() if name not in made}
    copies = set()
    for operator in reshapes:
        source, result = owner[operator.inputs[0]], operator.outputs[0]
        if result not in outputs:
            owner[result] = source
        elif source in fixed or source in constants:
            copies.add(operator.name)
            fixed[result] = outputs[result]
        else:
            fixed[source] = outputs[result]
            owner[result] = source
    return Storage(owner=owner, fixed=fixed, constants=constants, copies=frozenset(copies))
