"""Nodes with graphs inside, which are gone when a model is read: branches and loops.

A library's functions have no control flow: of an If the branch that is taken is compiled, or both where
that is known only at run time; of Loop, Scan and SequenceMap one iteration after another. Their conditions
and trip counts must be known for that (ONNX, "If", "Loop", "Scan", "SequenceMap").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from kernels.errors import InputError
from kernels.models import onnx_functions
from kernels.models.onnx_file import name_of
from kernels.models.onnx_sequences import Walk, attributes, constant, emit, hint, known, sequence, stack

MOST_NODES = 1 << 17
"""Of all iterations that are written out, for a loop of few bytes must not take all time and memory."""
BRANCHES = ("then_branch", "else_branch")
OLDEST_SCAN = 9
"""In opset 8 Scan also ran over batches."""


def _written(
    walk: Walk,
    graph: onnx.GraphProto,
    prefix: str,
    given: Sequence[str],
    opsets: Mapping[str, int],
    where: str,
) -> list[str]:
    """Take a graph's nodes with these inputs; what its outputs are named."""
    inputs = dict(zip((value.name for value in graph.input), given, strict=True))
    nodes, constants, outputs = onnx_functions.contents(graph, prefix, inputs)
    walk.written += max(1, len(nodes))
    if walk.written > MOST_NODES:
        raise InputError(f"its iterations, written out, come to more than {MOST_NODES} nodes")
    for name, value in constants.items():
        walk.know(name, value)
    walk.need(outputs)
    walk.take_inside(nodes, opsets, where)
    return outputs


def _choose(walk: Walk, node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """The branch that is taken; where nobody knows yet which, both, and those of their results."""
    condition, words, name = node.input[0], attributes(node), walk.space(name_of(node))
    if condition in walk.values:
        branch = words["then_branch" if walk.values[condition].ravel()[0] else "else_branch"]
        for own, output in zip(
            node.output, _written(walk, branch, name, (), opsets, "branch"), strict=True
        ):
            walk.alias(own, output)
        return
    chosen = f"{name}/chosen"
    emit(walk, "Reshape", [condition, constant(walk, f"{name}/none", np.zeros(0, np.int64))], [chosen])
    try:
        sides = [_written(walk, words[key], f"{name}/{key}", (), opsets, key) for key in BRANCHES]
    except InputError as error:
        why = f"both branches are computed else, and {error}"
        raise InputError(_decided(walk, condition, why)) from error
    for own, *pair in zip(node.output, *sides, strict=True):
        results = [walk.tensor(each) for each in pair]
        if results[0].shape != results[1].shape or results[0].dtype is not results[1].dtype:
            what = " and ".join(f"{list(each.shape)} of {each.dtype}" for each in results)
            raise InputError(_decided(walk, condition, f"its branches give {what}"))
        emit(walk, "Where", [chosen, *pair], [own])


def _decided(walk: Walk, condition: str, why: str) -> str:
    return f"its condition ('{condition}') must be constant: {why}{hint(walk.draft)}"


def _loop(walk: Walk, node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """One iteration after another, as long as the condition holds and up to the trip count."""
    why = "its iterations are written out"
    body, name = attributes(node)["body"], walk.space(name_of(node))
    count, condition, *states = [*node.input, "", ""][: max(2, len(node.input))]
    trips = int(known(walk, count, "trip count", why).ravel()[0]) if count else MOST_NODES + 1
    condition = condition or constant(walk, f"{name}/always", True)  # noqa: FBT003 - a value, not a flag
    carried = len(states)
    gathered: list[list[str]] = [[] for _ in node.output[carried:]]
    for trip in range(trips):
        if not known(walk, condition, "condition", why).ravel()[0]:
            break
        prefix = f"{name}.{trip}"
        number = constant(walk, f"{prefix}/trip", np.int64(trip))
        condition, *made = _written(walk, body, prefix, (number, condition, *states), opsets, "body")
        states = made[:carried]
        for parts, part in zip(gathered, made[carried:], strict=False):
            parts.append(part)
    _finish(walk, node, states, gathered, [(0, False)] * len(gathered))


def _scan(walk: Walk, node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """One iteration for each place along the axes of what is scanned."""
    if opsets.get("", 0) < OLDEST_SCAN:
        raise InputError(f"of an opset before {OLDEST_SCAN}")
    words, name = attributes(node), walk.space(name_of(node))
    carried = len(node.input) - words["num_scan_inputs"]
    states, sources = list(node.input[:carried]), node.input[carried:]
    shapes = [walk.tensor(source).shape for source in sources]
    axes = [
        axis % len(shape) for axis, shape in zip(_axes(words, "input", len(sources)), shapes, strict=True)
    ]
    lengths = {shape[axis] for axis, shape in zip(axes, shapes, strict=True)}
    if len(lengths) != 1:
        raise InputError(f"what it scans has the extents {sorted(lengths)}")
    (length,) = lengths
    backward = words.get("scan_input_directions") or [0] * len(sources)
    gathered: list[list[str]] = [[] for _ in node.output[carried:]]
    for step in range(length):
        prefix, parts = f"{name}.{step}", []
        for number, source in enumerate(sources):
            place = length - 1 - step if backward[number] else step
            parts.append(f"{prefix}/scanned.{number}")
            at = constant(walk, f"{prefix}/place.{number}", np.int64(place))
            emit(walk, "Gather", [source, at], [parts[-1]], axis=axes[number])
        made = _written(walk, words["body"], prefix, (*states, *parts), opsets, "body")
        states = made[:carried]
        for found, part in zip(gathered, made[carried:], strict=True):
            found.append(part)
    turned = words.get("scan_output_directions") or [0] * len(gathered)
    ways = zip(_axes(words, "output", len(gathered)), map(bool, turned), strict=True)
    _finish(walk, node, states, gathered, list(ways))


def _axes(words: Mapping[str, Any], what: str, count: int) -> Sequence[int]:
    axes: Sequence[int] = words.get(f"scan_{what}_axes") or [0] * count
    return axes


def _finish(
    walk: Walk,
    node: onnx.NodeProto,
    states: Sequence[str],
    gathered: Sequence[Sequence[str]],
    ways: Sequence[tuple[int, bool]],
) -> None:
    """The states after the last iteration, and what was gathered, along an axis, or backwards along it."""
    for name, state in zip(node.output, states, strict=False):
        if name:
            walk.alias(name, state)
    for name, parts, (axis, backward) in zip(node.output[len(states) :], gathered, ways, strict=True):
        if name:
            stack(walk, list(reversed(parts)) if backward else parts, axis, name)


def _map(walk: Walk, node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """A graph for each place of a sequence, and of the others that are sequences."""
    body, items = attributes(node)["body"], sequence(walk, node.input[0])
    made: list[list[str]] = [[] for _ in node.output]
    for number in range(len(items)):
        given = [walk.sequences[name][number] if name in walk.sequences else name for name in node.input]
        outputs = _written(walk, body, f"{walk.space(name_of(node))}.{number}", given, opsets, "body")
        for found, output in zip(made, outputs, strict=True):
            found.append(output)
    walk.sequences |= {name: tuple(found) for name, found in zip(node.output, made, strict=True)}


HANDLERS: Mapping[str, Callable[[Walk, onnx.NodeProto, Mapping[str, int]], None]] = {
    "If": _choose,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _map,
}
"""By the operator's type, of ONNX's own domain."""
