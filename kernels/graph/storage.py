"""Which tensors of a network are the same memory, and whose memory it is."""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec

from kernels.plan import Place
from kernels.program import Operator, Program, Role, Tensor

RESHAPE = "reshape"
"""The kind of operator that gives the same bytes another shape."""
SLICE = "slice"
"""The kind that gives a part, which may lie within the whole as it is."""
SMALL = 4096
MOST_PARTS = 4
"""A tensor may be kept for a part of it that is needed longer, if it has so few bytes, or such parts."""


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """`owner` names for each tensor the one whose memory it shares, itself as a rule.

    A part begins `offsets` bytes into its owner. Owners that are the network's inputs or lie in one of
    its outputs have a fixed place; constants are among the weights; all others are in the arena.
    `copies` are the names of the reshapes that move bytes all the same.
    """

    owner: dict[str, str]
    fixed: dict[str, Place]
    constants: frozenset[str]
    copies: frozenset[str]
    offsets: dict[str, int]

    def in_arena(self, tensor: str) -> bool:
        """Whether a tensor's memory has to be planned."""
        owner = self.owner[tensor]
        return owner not in self.fixed and owner not in self.constants

    def is_alias(self, operator: Operator) -> bool:
        """Whether an operator needs no kernel."""
        (*_, result) = operator.outputs
        is_part = operator.kind == SLICE and result in self.offsets
        return is_part or (operator.kind == RESHAPE and operator.name not in self.copies)


def store(program: Program) -> Storage:
    """The memory of each tensor.

    What a reshape makes an output of is written to that output at once, by the kernel that
    computes it; but an input, a constant, another output and a part of a tensor are copied. A part
    whose elements lie together stays where it is, if the whole need not be kept for it alone.
    """
    made = _Made(program)
    for operator in program.operators:
        if operator.kind == RESHAPE:
            made.reshape(operator)
        elif operator.kind == SLICE:
            made.cut(operator)
    return Storage(
        owner=made.owner,
        fixed=made.fixed,
        constants=made.constants,
        copies=frozenset(made.copies),
        offsets=made.offsets,
    )


class _Made:
    """A Storage in the making."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.owner = {tensor.name: tensor.name for tensor in program.tensors}
        self.offsets: dict[str, int] = {}
        self.copies: set[str] = set()
        of_role = {role: [t.name for t in program.tensors if t.role is role] for role in Role}
        self.constants = frozenset(of_role[Role.CONSTANT])
        self._outputs = {n: Place(home="output", number=at) for at, n in enumerate(of_role[Role.OUTPUT])}
        reshaped = {operator.outputs[0] for operator in program.operators if operator.kind == RESHAPE}
        self.fixed = {n: Place(home="input", number=at) for at, n in enumerate(of_role[Role.INPUT])}
        self.fixed |= {name: place for name, place in self._outputs.items() if name not in reshaped}
        self._read: dict[str, dict[str, int]] = {}
        for at, operator in reversed(list(enumerate(program.operators))):
            until = at
            if operator.kind in (RESHAPE, SLICE):  # whose result may be the same memory
                until = max(at, self._last(operator.outputs[0]))
            for name in operator.inputs:
                self._read.setdefault(name, {})[operator.name] = until

    def _last(self, name: str, but: str = "") -> int:
        """Until when a tensor is read, through what it is made into too, by other operators than `but`."""
        return max(
            (until for reader, until in self._read.get(name, {}).items() if reader != but), default=0
        )

    def reshape(self, operator: Operator) -> None:
        """The same bytes; an output's, where its are free."""
        given, result = operator.inputs[0], operator.outputs[0]
        source = self.owner[given]
        if result not in self._outputs:
            self.owner[result] = source
            if given in self.offsets:
                self.offsets[result] = self.offsets[given]
        elif source in self.fixed or source in self.constants or given in self.offsets:
            self.copies.add(operator.name)
            self.fixed[result] = self._outputs[result]
        else:
            self.fixed[source] = self._outputs[result]
            self.owner[result] = source

    def cut(self, operator: Operator) -> None:
        """Some of the bytes, if they lie together and are there for as long as they are needed."""
        given, result = operator.inputs[0], operator.outputs[0]
        source = self.owner[given]
        x, y = self._program.tensor(given), self._program.tensor(result)
        first = _first_of_block(operator.attributes, x, y)
        if first is None or source in self.constants or result in self._outputs:
            return
        whole = self._program.tensor(source).bytes
        until = max(self._last(source, operator.name), self._last(given, operator.name))
        cheap = whole <= max(SMALL, MOST_PARTS * y.bytes)
        if source in self.fixed or cheap or self._last(result) <= until:
            self.owner[result], self.offsets[result] = source, self.offsets.get(given, 0) + first


def _first_of_block(attributes: Any, x: Tensor, y: Tensor) -> int | None:
    """Where a part begins in x, in bytes, if its elements lie together there; None if they do not."""
    starts, ends, steps = (attributes[key] for key in ("starts", "ends", "steps"))
    bounds = list(zip(starts, ends, steps or (1,) * len(starts), x.shape, strict=True))
    cut = [axis for axis, (start, end, _, extent) in enumerate(bounds) if (start, end) != (0, extent)]
    if any(step != 1 for *_, step, _ in bounds) or prod(y.shape[: max(cut, default=0)]) != 1:
        return None
    before: int = sum(start * prod(x.shape[axis + 1 :]) for axis, (start, *_) in enumerate(bounds))
    return y.dtype.bytes * before
