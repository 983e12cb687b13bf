"""Functions that exporters write as several operators, found and made one again.

Each finder looks at one operator, the last that is certain to be of the pattern, and
walks to its operands. What nobody else needs of the old operators goes when the network
is put together; what is needed stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from kernels.graph.chains import Readers
from kernels.graph.draft import Draft
from kernels.operators.base import Array
from kernels.program import Attribute, ElementType, Network, Operator, Role

TOLERANCE = 1e-6
"""Relative, of a constant in a pattern: exporters round them to float32."""
MOST_ALIKE = 1 << 14
"""Elements of a constant that may be one number for all channels."""
MOST_FACTORS = 4


def near(found: float, wanted: float) -> bool:
    """Whether a number is the one of a pattern."""
    return abs(found - wanted) <= TOLERANCE * abs(wanted)


@dataclass(frozen=True)
class Match:
    """One operator of ours in the place of the one that makes `output`."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute]
    constants: tuple[tuple[str, Array], ...] = ()
    """Operands after the inputs, by name."""


class Patterns:
    """A network, and what is asked of it to find patterns."""

    def __init__(self, network: Network) -> None:
        """Index it once."""
        self.network = network
        self.readers = Readers(network)

    def made_by(self, name: str, kind: str) -> Operator | None:
        """The operator that makes a tensor, if it is of that kind."""
        maker = self.readers.maker(name)
        return maker if maker is not None and maker.kind == kind else None

    def number(self, name: str) -> float | None:
        """The value of a constant of one element, or of some that are all the same."""
        value = self.network.constants.get(name)
        if value is None or not 0 < value.size <= MOST_ALIKE or (value != value.flat[0]).any():
            return None
        return float(value.flat[0])

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self.network.program.tensor(name).shape

    def with_number(self, operator: Operator | None, kind: str, value: float) -> str | None:
        """The other operand of an operator, if it is of that kind and has that number as one of its two.

        Of a difference or quotient the number is the second.
        """
        if operator is None or operator.kind != kind:
            return None
        first, second = operator.inputs
        for given, other in ((second, first), (first, second)):
            found = self.number(given)
            if found is not None and near(found, value):
                return other
            if kind in ("sub", "div"):
                break
        return None

    def scaled(self, name: str, factor: float) -> str | None:
        """What is multiplied by the factor, or divided by its inverse, to make a tensor."""
        maker = self.readers.maker(name)
        return self.with_number(maker, "mul", factor) or self.with_number(maker, "div", 1 / factor)


def combine(network: Network) -> Network:
    """The same network with every pattern that is found made one operator."""
    patterns = Patterns(network)
    matches: dict[str, Match] = {}
    for operator in network.program.operators:
        if network.program.tensor(operator.outputs[0]).dtype is not ElementType.FLOAT32:
            continue
        for find in FINDERS.get(operator.kind, ()):
            match = find(patterns, operator)
            if match is not None and patterns.shape(match.inputs[0]) == patterns.shape(match.output):
                matches[match.output] = match
    if not matches:
        return network
    draft = Draft.of(network)
    for tensor in network.program.tensors:
        if tensor.role is Role.INTERNAL:
            draft.add(tensor)
    for operator in network.program.operators:
        match = matches.get(operator.outputs[0])
        draft.append(operator if match is None else _operator(draft, operator, match))
    return draft.network()


def _operator(draft: Draft, old: Operator, match: Match) -> Operator:
    made = [draft.constant(f"{match.output}.{name}", value).name for name, value in match.constants]
    return msgspec.structs.replace(
        old,
        kind=match.kind,
        inputs=(*match.inputs, *made),
        operands=("x", *(name for name, _ in match.constants), "y"),
        attributes=match.attributes,
    )


def _function(kind: str, x: str, operator: Operator) -> Match:
    return Match(kind=kind, inputs=(x,), output=operator.outputs[0], attributes={})


def hard_sigmoid(patterns: Patterns, operator: Operator) -> Match | None:
    """min(max(x + 3, 0), 6) / 6."""
    x = _bounded(patterns, patterns.scaled(operator.outputs[0], 1 / 6))
    return None if x is None else _function("hard_sigmoid", x, operator)


def _bounded(patterns: Patterns, name: str | None) -> str | None:
    """X of min(max(x + 3, 0), 6)."""
    clip = None if name is None else patterns.made_by(name, "clip")
    if clip is None or clip.attributes != {"minimum": 0.0, "maximum": 6.0}:
        return None
    return patterns.with_number(patterns.readers.maker(clip.inputs[0]), "add", 3.0)


def hard_swish(patterns: Patterns, operator: Operator) -> Match | None:
    """X min(max(x + 3, 0), 6) / 6, divided last."""
    product = patterns.scaled(operator.outputs[0], 1 / 6)
    maker = None if product is None else patterns.made_by(product, "mul")
    if maker is None:
        return None
    for x, bounded in (maker.inputs, maker.inputs[::-1]):
        if _bounded(patterns, bounded) == x:
            return _function("hard_swish", x, operator)
    return None


def gated(patterns: Patterns, operator: Operator) -> Match | None:
    """X times its sigmoid, or its hard one, however that is written, or tanh of its softplus."""
    for x, gate in (operator.inputs, operator.inputs[::-1]):
        maker = patterns.readers.maker(gate)
        if maker is None:
            continue
        for kind, whole in (("sigmoid", "silu"), ("hard_sigmoid", "hard_swish")):
            if maker.kind == kind and maker.inputs == (x,):
                return _function(whole, x, operator)
        if maker.kind == "tanh":
            inner = patterns.made_by(maker.inputs[0], "softplus")
            if inner is not None and inner.inputs == (x,):
                return _function("mish", x, operator)
        if _bounded(patterns, patterns.scaled(gate, 1 / 6)) == x:
            return _function("hard_swish", x, operator)
    return None


def gelu(patterns: Patterns, operator: Operator) -> Match | None:
    """X (1 + erf(x / sqrt 2)) / 2, halved before, between or last; or with tanh in the place of erf."""
    name, halved = operator.outputs[0], False
    whole = patterns.scaled(name, 0.5)
    if whole is not None:
        name, halved = whole, True
    product = patterns.made_by(name, "mul")
    if product is None:
        return None
    for given, bell in (product.inputs, product.inputs[::-1]):
        x, y = given, bell
        if not halved:
            half = patterns.scaled(given, 0.5)
            if half is not None:
                x = half
            else:
                y = patterns.scaled(bell, 0.5) or ""
                if not y:
                    continue
        inner = patterns.with_number(patterns.readers.maker(y), "add", 1.0)
        erf = None if inner is None else patterns.made_by(inner, "erf")
        if erf is not None and patterns.scaled(erf.inputs[0], float(np.sqrt(0.5))) == x:
            return _function("gelu", x, operator)
        tanh = None if inner is None else patterns.made_by(inner, "tanh")
        if tanh is not None and _is_cubic(patterns, tanh.inputs[0], x):
            return _function("gelu_tanh", x, operator)
    return None


def _is_cubic(patterns: Patterns, name: str, x: str) -> bool:
    """Whether a tensor is sqrt(2 / pi) (x + 0.044715 x^3), in any order and grouping of its factors."""
    factor, names = _monomial(patterns, name, x)
    others = [each for each in names if each != x]
    total = patterns.made_by(others[0], "add") if len(others) == 1 else None
    if total is None or not near(factor, float(np.sqrt(2 / np.pi))):
        return False
    power = len(names) - 1  # of x outside the sum
    low, high = sorted(
        (_monomial(patterns, each, x) for each in total.inputs), key=lambda term: len(term[1])
    )
    same = low[1] == (x,) * (1 - power) and high[1] == (x,) * (3 - power)
    return same and near(low[0], 1.0) and near(high[0], CUBIC)


CUBIC = 0.044715
"""Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2."""


def _monomial(patterns: Patterns, name: str, x: str) -> tuple[float, tuple[str, ...]]:
    """A tensor as a number times a product of tensors, x among them, as far as products go."""
    value = patterns.number(name)
    if value is not None:
        return value, ()
    maker = None if name == x else patterns.readers.maker(name)
    if maker is None or maker.kind not in ("mul", "div", "pow"):
        return 1.0, (name,)
    (first, left), (second, right) = (_monomial(patterns, each, x) for each in maker.inputs)
    if maker.kind == "mul" and len(left) + len(right) <= MOST_FACTORS:
        return first * second, tuple(sorted((*left, *right)))
    if maker.kind == "div" and not right and second:
        return first / second, left
    if maker.kind == "pow" and not right and second in (2.0, 3.0):
        return first**second, tuple(sorted(left * int(second)))
    return 1.0, (name,)


def layer_norm(patterns: Patterns, operator: Operator) -> Match | None:
    """(x - mean) / sqrt(mean of (x - mean)^2 + epsilon), and the scale and shift behind it."""
    difference, root = operator.inputs
    sqrt = patterns.made_by(root, "sqrt")
    total = None if sqrt is None else patterns.made_by(sqrt.inputs[0], "add")
    if total is None:
        return None
    for variance, added in (total.inputs, total.inputs[::-1]):
        epsilon = patterns.number(added)
        x = None if epsilon is None else _centred(patterns, difference, variance)
        if x is not None and epsilon is not None:
            return _scaled(patterns, operator, x, epsilon)
    return None


def _mean(patterns: Patterns, name: str) -> str | None:
    """What a tensor is the mean of, along the last axis."""
    maker = patterns.made_by(name, "reduce_mean")
    if maker is None or not maker.attributes["keepdims"]:
        return None
    rank = len(patterns.network.program.tensor(maker.inputs[0]).shape)
    axes = maker.attributes["axes"]
    last = isinstance(axes, list | tuple) and tuple(axis % rank for axis in axes) == (rank - 1,)
    return maker.inputs[0] if last else None


def _centred(patterns: Patterns, difference: str, variance: str) -> str | None:
    """X, if the difference is x - mean and the variance the mean of its square."""
    square = _mean(patterns, variance)
    product = None if square is None else patterns.made_by(square, "mul")
    ours = patterns.made_by(difference, "sub")
    if product is None or ours is None or product.inputs[0] != product.inputs[1]:
        return None
    theirs = patterns.made_by(product.inputs[0], "sub")
    if (
        theirs is None
        or [_mean(patterns, each.inputs[1]) for each in (ours, theirs)] != [ours.inputs[0]] * 2
    ):
        return None
    return ours.inputs[0] if theirs.inputs[0] == ours.inputs[0] else None


def _scaled(patterns: Patterns, operator: Operator, x: str, epsilon: float) -> Match:
    """With the product and the sum behind it, as far as they are there, alone and constant."""
    name = operator.outputs[0]
    channels = patterns.network.program.tensor(name).shape[-1:]
    found = {"scale": np.ones(channels, np.float32), "shift": np.zeros(channels, np.float32)}
    for word, kind in (("scale", "mul"), ("shift", "add")):
        following = patterns.readers.alone(name)
        if following is None or following.kind != kind:
            continue
        (other,) = (given for given in following.inputs if given != name)
        value = patterns.network.constants.get(other)
        if value is None or value.shape not in (channels, (1,)):
            break
        found[word] = np.ascontiguousarray(np.broadcast_to(value, channels))
        name = following.outputs[0]
    return Match(
        kind="layer_norm",
        inputs=(x,),
        output=name,
        attributes={"epsilon": epsilon},
        constants=tuple(found.items()),
    )


Finder = Callable[[Patterns, Operator], Match | None]
FINDERS: dict[str, tuple[Finder, ...]] = {
    "mul": (hard_sigmoid, hard_swish, gated, gelu),
    "div": (hard_sigmoid, hard_swish, gelu, layer_norm),
}
"""By the kind of the operator that they look at; later ones have the last word."""
