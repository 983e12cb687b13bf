"""ONNX's RNN, GRU and LSTM, step by step over a sequence of known length.

What does not depend on the state is one product for all steps; each step then has a product of
the state and a few functions of single elements. Steps are alike, so that they share kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernels.elements import numpy_type
from kernels.operators.base import Shape
from kernels.operators.binary import both
from kernels.operators.gemm import multiplied
from kernels.operators.indexing import as_indices
from kernels.operators.movement import joined, part_of
from kernels.operators.node import Node, optional, real, reshaped, transposed
from kernels.operators.unary import applied
from kernels.program import Tensor

ACTIVATIONS = {
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softsign": "softsign",
    "elu": "elu",
    "leakyrelu": "leaky_relu",
}
"""Functions of states by ONNX's names in lower case, with the slopes that are ONNX's own by default."""
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
MOST_STEPS = 1 << 12
DIMENSIONS = 3
"""Of sequences, and of the weights that they meet."""


class Cell:
    """One direction of a node: its weights, and what a step does to the state."""

    def __init__(self, node: Node, number: int, functions: Sequence[str]) -> None:
        """Direction `number` of the node, with the functions of its gates."""
        self.node, self.gates = node, GATES[node.op]
        self.hidden = node.given(2).shape[-1]
        self.functions = [self._function(name) for name in functions]
        self.w, self.r = (transposed(node, self._of(node.given(which), number), (1, 0)) for which in (1, 2))
        self.matrices = self.columns(self.r, self.gates) if node.op == "GRU" else ()
        self.biases = self._parts(3, number, 2 * self.gates)
        self.peepholes = self._parts(7, number, 3) if node.op == "LSTM" else ()

    def _function(self, name: str) -> Callable[[Tensor], Tensor]:
        kind = ACTIVATIONS.get(name.lower())
        if kind is None:
            raise self.node.refuse(f"the function '{name}'")
        return lambda x: applied(self.node, kind, x)

    def _of(self, whole: Tensor, number: int) -> Tensor:
        """The part of a direction, without its axis."""
        bounds = [(number, number + 1, 1), *((0, extent, 1) for extent in whole.shape[1:])]
        return reshaped(self.node, part_of(self.node, whole, bounds), whole.shape[1:])

    def _parts(self, which: int, number: int, count: int) -> tuple[Tensor, ...]:
        """The vectors of a direction that an optional input holds; none if it is not there."""
        whole = optional(self.node, which)
        if whole is None:
            return ()
        vector = self._of(whole, number)
        return self.columns(reshaped(self.node, vector, (1, count * self.hidden)), count)

    def columns(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """A matrix of `count` gates side by side, as one for each gate."""
        rows, size = x.shape[0], self.hidden
        return tuple(
            part_of(self.node, x, [(0, rows, 1), (gate * size, (gate + 1) * size, 1)])
            for gate in range(count)
        )

    def sum(self, *terms: Tensor) -> Tensor:
        """The sum of some matrices."""
        total, *rest = terms
        for term in rest:
            total = both(self.node, "add", total, term)
        return total

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """The product of two matrices, element by element."""
        return both(self.node, "mul", a, b)

    def ahead(self, x: Tensor) -> Tensor:
        """What all steps add, from the inputs: [steps, batch, gates x hidden]."""
        steps, batch, size = x.shape
        rows = multiplied(self.node, reshaped(self.node, x, (steps * batch, size)), self.w)
        return reshaped(self.node, rows, (steps, batch, self.gates * self.hidden))

    def bias(self, gate: int) -> tuple[Tensor, ...]:
        """Both biases of a gate, if there are any."""
        return (self.biases[gate], self.biases[self.gates + gate]) if self.biases else ()

    def limited(self, x: Tensor) -> Tensor:
        """What a function gets: within the limit, if the node has one."""
        limit = self.node.attribute("clip")
        if limit is None:
            return x
        return applied(self.node, "clip", x, {"minimum": -limit, "maximum": limit})

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state, by the node's type."""
        return {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self.node.op](x, state)

    def _rnn(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        total = self.sum(multiplied(self.node, h, self.r), x, *self.bias(0))
        return (self.functions[0](self.limited(total)),)

    def _gru(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gates in the order update, reset, hidden."""
        (h,) = state
        f, g = self.functions
        given = self.columns(x, self.gates)
        matrices = self.matrices
        update, reset = (
            f(self.limited(self.sum(multiplied(self.node, h, matrices[n]), given[n], *self.bias(n))))
            for n in (0, 1)
        )
        own, other = self.bias(2) or (None, None)
        if self.node.attribute("linear_before_reset", 0):
            through = multiplied(self.node, h, matrices[2])
            through = self.product(reset, through if other is None else self.sum(through, other))
            terms = [through, given[2], *([] if own is None else [own])]
        else:
            through = multiplied(self.node, self.product(reset, h), matrices[2])
            terms = [through, given[2], *(each for each in (own, other) if each is not None)]
        hidden = g(self.limited(self.sum(*terms)))
        kept = both(self.node, "sub", self.one, update)
        return (self.sum(self.product(kept, hidden), self.product(update, h)),)

    def _lstm(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gates in the order input, output, forget, cell; peepholes without the cell's."""
        h, c = state
        f, g, last = self.functions
        total = self.sum(multiplied(self.node, h, self.r), x)
        entry, leave, forget, cell = (
            self.sum(part, *self.bias(n)) for n, part in enumerate(self.columns(total, self.gates))
        )
        if self.peepholes:
            entry = self.sum(entry, self.product(c, self.peepholes[0]))
            forget = self.sum(forget, self.product(c, self.peepholes[2]))
        entry = f(self.limited(entry))
        if self.node.attribute("input_forget", 0):
            forget = both(self.node, "sub", self.one, entry)
        else:
            forget = f(self.limited(forget))
        c = self.sum(self.product(forget, c), self.product(entry, g(self.limited(cell))))
        if self.peepholes:
            leave = self.sum(leave, self.product(c, self.peepholes[1]))
        return self.product(f(self.limited(leave)), last(c)), c

    @property
    def one(self) -> Tensor:
        """The number 1."""
        return self.node.constant(np.ones(1, np.float32))


def _fit(node: Node) -> tuple[tuple[bool, ...], tuple[str, ...]]:
    """Which directions go backwards, and the functions of all; refuses what ONNX does not define."""
    word = node.attribute("direction", "forward")
    if word not in DIRECTIONS:
        raise node.refuse(f"the direction '{word}'")
    backwards = DIRECTIONS[word]
    functions = tuple(node.attribute("activations") or DEFAULTS[node.op] * len(backwards))
    if len(functions) != len(DEFAULTS[node.op]) * len(backwards):
        raise node.refuse(f"{len(functions)} functions for {len(backwards)} directions")
    x, r = node.given(0).shape, node.given(2).shape
    if not len(x) == len(r) == DIMENSIONS:
        raise node.refuse(
            f"sequences of shape {x} with weights of shape {r}, where both have three dimensions"
        )
    directions, hidden, rows = len(backwards), r[2], GATES[node.op] * r[2]
    swapped = bool(node.attribute("layout", 0))
    batch = x[0 if swapped else 1]
    state = (batch, directions, hidden) if swapped else (directions, batch, hidden)
    shapes = {
        1: (directions, rows, x[2]),
        2: (directions, rows, hidden),
        3: (directions, 2 * rows),
        4: (batch,),
        5: state,
        6: state,
        7: (directions, 3 * hidden),
    }
    for which, shape in shapes.items():
        given = optional(node, which)
        if given is not None and given.shape != shape:
            raise node.refuse(f"input {which} of shape {given.shape}, where {shape} belongs")
    return backwards, functions


def _recurrent(node: Node) -> tuple[Tensor, ...]:
    """Y [steps, directions, batch, hidden], and the last states [directions, batch, hidden]."""
    x = node.given(0)
    real(node, x, node.given(1), node.given(2))
    backwards, functions = _fit(node)
    swapped = bool(node.attribute("layout", 0))
    if swapped:
        x = transposed(node, x, (1, 0, 2))
    steps, batch, _ = x.shape
    if steps > MOST_STEPS:
        raise node.refuse(f"{steps} steps; at most {MOST_STEPS} are unrolled")
    if node.attribute("activation_alpha") or node.attribute("activation_beta"):
        raise node.refuse("slopes of its functions other than ONNX's own")
    each = len(DEFAULTS[node.op])
    lengths = _lengths(node, steps)
    results, lasts = [], []
    for number, backward in enumerate(backwards):
        cell = Cell(node, number, functions[number * each : (number + 1) * each])
        shape = (batch, cell.hidden)
        state = tuple(
            _initial(node, which, number, shape, swapped=swapped)
            for which in ((5, 6) if node.op == "LSTM" else (5,))
        )
        made, state = _walk(cell, cell.ahead(x), state, lengths, backward=backward)
        results.append(joined(node, [reshaped(node, h, (1, 1, *shape)) for h in made], 0))
        lasts.append(state)
    whole = joined(node, results, 1)
    ends = [
        joined(node, [reshaped(node, end, (1, *end.shape)) for end in states], 0)
        for states in zip(*lasts, strict=True)
    ]
    if swapped:
        whole, ends = transposed(node, whole, (2, 0, 1, 3)), [transposed(node, e, (1, 0, 2)) for e in ends]
    return whole, *ends


def _walk(
    cell: Cell, ahead: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None, *, backward: bool
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """What each step gives, in the order of the sequence, and the last state."""
    node = cell.node
    steps, batch, width = ahead.shape
    made: list[Any] = [None] * steps
    zero = node.constant(np.zeros(1, np.float32))
    for step in reversed(range(steps)) if backward else range(steps):
        given = part_of(node, ahead, [(step, step + 1, 1), (0, batch, 1), (0, width, 1)])
        after = cell.step(reshaped(node, given, (batch, width)), state)
        made[step] = after[0]
        if lengths is not None:
            number = node.constant(np.array([step], numpy_type(lengths.dtype)))
            runs = node.call("greater", {"a": lengths, "b": number})
            made[step] = node.call("where", {"condition": runs, "a": after[0], "b": zero})
            after = tuple(
                node.call("where", {"condition": runs, "a": new, "b": old})
                for new, old in zip(after, state, strict=True)
            )
        state = after
    return made, state


def _lengths(node: Node, steps: int) -> Tensor | None:
    """How long each sequence of the batch is, [batch, 1]; none where all are whole."""
    given = optional(node, 4)
    if given is None:
        return None
    value = node.value(4)
    if value is not None and np.all(value == steps):
        return None
    return reshaped(node, as_indices(node, 4), (*given.shape, 1))


def _initial(node: Node, which: int, number: int, shape: Shape, *, swapped: bool) -> Tensor:
    """The state before the first step: given, or zeros."""
    whole = optional(node, which)
    if whole is None:
        return node.constant(np.zeros(shape, np.float32))
    if swapped:
        whole = transposed(node, whole, (1, 0, 2))
    return reshaped(
        node, part_of(node, whole, [(number, number + 1, 1), *((0, e, 1) for e in shape)]), shape
    )


ONNX = dict.fromkeys(GATES, _recurrent)
