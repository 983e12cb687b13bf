"""Random small graphs of the supported operators, with odd sizes, against onnxruntime."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import graph
from tests import networks
from tests.builders import Graph
from tests.unit.test_graph import assert_sound
from tests.unit.test_onnx import read

Shape = tuple[int, ...]
MOST = 3000
"""Elements of a tensor."""


class Grown(Graph):
    """A graph that grows by random nodes on random earlier results."""

    def __init__(self, draw: Any) -> None:
        super().__init__("random")
        self.draw = draw
        extents = st.integers(1, 9)
        self.inputs: dict[str, Shape] = {
            "image": (
                draw(st.integers(1, 2)),
                draw(st.sampled_from([1, 3, 4, 6, 8])),
                draw(extents),
                draw(extents),
            ),
            "rows": (draw(st.integers(1, 4)), draw(st.integers(1, 9))),
        }
        self.shapes: dict[str, Shape] = dict(self.inputs)

    def model(self) -> onnx.ModelProto:
        """All results that nobody reads are outputs."""
        read = {name for node in self.nodes for name in node.input}
        made = [node.output[0] for node in self.nodes if node.output[0] not in read]
        return networks.model(self.nodes, self.inputs, made, self.constants, opset=17)

    def pick(self, rank: int | None = None) -> str:
        """A result, the later ones sooner."""
        names = [name for name, shape in self.shapes.items() if rank in (None, len(shape))]
        return names[-1 - self.draw(st.integers(0, min(3, len(names) - 1)))]

    def grow(self) -> None:
        """One more node, if its result is of a bearable size."""
        before = len(self.nodes)
        step = self.draw(st.sampled_from(STEPS))
        name = step(self)
        if len(self.nodes) == before:
            return
        inferred = onnx.shape_inference.infer_shapes(self.model(), strict_mode=True)
        for value in (*inferred.graph.value_info, *inferred.graph.output):
            if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
                continue  # steps bring what they make back to float32
            self.shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        shape = self.shapes.get(name, (0,))
        if not 0 < prod(shape) <= MOST:
            for node in self.nodes[before:]:
                self.shapes.pop(node.output[0], None)
            del self.nodes[before:]


def conv(g: Grown) -> str:
    x = g.pick(4)
    channels = g.shapes[x][1]
    groups = g.draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    filters = groups * g.draw(st.integers(1, 3))
    kernel = g.draw(st.sampled_from([1, 2, 3]))
    pads = [g.draw(st.integers(0, kernel)) for _ in range(4)]
    if min(g.shapes[x][2:]) + min(pads[0] + pads[2], pads[1] + pads[3]) < kernel:
        return x
    y = g.node(
        "Conv",
        x,
        g.weight(filters, channels // groups, kernel, kernel),
        *([g.weight(filters, low=-0.5, high=0.5)] if g.draw(st.booleans()) else []),
        group=groups,
        pads=pads,
        strides=[g.draw(st.integers(1, 2)), 1],
    )
    if g.draw(st.booleans()):
        ends = [
            g.weight(filters, low=low, high=high)
            for low, high in ((0.5, 1.5), (-1, 1), (-1, 1), (0.5, 1.5))
        ]
        y = g.node("BatchNormalization", y, *ends)
    return y


def pool(g: Grown) -> str:
    x = g.pick(4)
    kernel = [g.draw(st.integers(1, min(3, extent))) for extent in g.shapes[x][2:]]
    begins = [g.draw(st.integers(0, size - 1)) for size in kernel]
    ends = [g.draw(st.integers(0, size - 1)) for size in kernel]
    op = g.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    strides = [g.draw(st.integers(1, 3)) for _ in kernel]
    return g.node(op, x, kernel_shape=kernel, pads=begins + ends, strides=strides)


def unary(g: Grown) -> str:
    ops = ("Relu", "Sigmoid", "Tanh", "HardSwish", "Erf", "Neg", "Abs", "Identity", "LeakyRelu", "Softsign")
    return g.node(g.draw(st.sampled_from(ops)), g.pick())


def clip(g: Grown) -> str:
    bounds = [g.constant(-0.5), g.constant(0.75)]
    kept = g.draw(st.sampled_from([bounds, bounds[:1], ["", bounds[1]], [g.constant(0), g.constant(6)]]))
    return g.node("Clip", g.pick(), *kept)


def pair(g: Grown) -> str:
    """Of two results that broadcast, or a result and a constant."""
    op = g.draw(st.sampled_from(["Add", "Sub", "Mul", "Max", "Min"]))
    x = g.pick()
    shape = g.shapes[x]
    fitting = [name for name, other in g.shapes.items() if broadcast(shape, other)]
    if g.draw(st.booleans()) and fitting:
        other = g.draw(st.sampled_from(fitting))
    else:
        kept = tuple(g.draw(st.sampled_from([1, extent])) for extent in shape)
        other = g.weight(*kept[g.draw(st.integers(0, len(kept))) :], low=-1.0, high=1.0)
    return g.node(op, *g.draw(st.permutations([x, other])))


def broadcast(a: Shape, b: Shape) -> bool:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def transpose(g: Grown) -> str:
    x = g.pick()
    if not g.shapes[x]:
        return x
    return g.node("Transpose", x, perm=g.draw(st.permutations(range(len(g.shapes[x])))))


def reshape(g: Grown) -> str:
    x = g.pick()
    rest, shape = prod(g.shapes[x]), []
    for _ in range(g.draw(st.integers(0, 4))):
        shape.append(g.draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0])))
        rest //= shape[-1]
    shape.insert(g.draw(st.integers(0, len(shape))), -1)
    return g.node("Reshape", x, g.index(shape))


def flatten(g: Grown) -> str:
    x = g.pick()
    return g.node("Flatten", x, axis=g.draw(st.integers(0, len(g.shapes[x]))))


def shuffle(g: Grown) -> str:
    x = g.pick(4)
    n, c, h, w = g.shapes[x]
    groups = g.draw(st.sampled_from([m for m in range(1, c + 1) if c % m == 0]))
    y = g.node("Reshape", x, g.index([n, groups, c // groups, h, w]))
    return g.node("Reshape", g.node("Transpose", y, perm=[0, 2, 1, 3, 4]), g.index([n, c, h, w]))


def along(g: Grown) -> str:
    x = g.pick()
    rank = len(g.shapes[x])
    if not rank:
        return x
    op = g.draw(st.sampled_from(["Softmax", "LogSoftmax", "Concat", "ReduceMean", "ReduceMax"]))
    axis = g.draw(st.integers(-rank, rank - 1))
    if op == "Concat":
        shape = g.shapes[x]
        place = axis % rank
        same = [
            name
            for name, other in g.shapes.items()
            if len(other) == rank
            and other[:place] + other[place + 1 :] == shape[:place] + shape[place + 1 :]
        ]
        return g.node("Concat", x, g.draw(st.sampled_from(same)), x, axis=axis)
    if op.startswith("Reduce"):
        axes = g.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
        return g.node(op, x, axes=axes, keepdims=int(g.draw(st.booleans())))
    return g.node(op, x, axis=axis)


def cut(g: Grown) -> str:
    x = g.pick()
    rank = len(g.shapes[x])
    if not rank:
        return x
    axis = g.draw(st.integers(0, rank - 1))
    if g.draw(st.booleans()):
        pads = [g.draw(st.integers(0, 2)) for _ in range(2 * rank)]
        return g.node("Pad", x, g.index(pads))
    start = g.draw(st.integers(0, g.shapes[x][axis] - 1))
    return g.node(
        "Slice", x, g.index([start]), g.index([99]), g.index([axis]), g.index([g.draw(st.integers(1, 2))])
    )


def product(g: Grown) -> str:
    x = g.pick()
    shape = g.shapes[x]
    if len(shape) < 2:
        return x
    if g.draw(st.booleans()):
        y = g.node("MatMul", x, g.weight(shape[-1], g.draw(st.integers(1, 9))))
        return (
            g.node("Add", y, g.weight(g.shapes.get(y, (1,))[-1], low=-1.0)) if g.draw(st.booleans()) else y
        )
    turned = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    return g.node("MatMul", x, g.node("Transpose", x, perm=turned))


def normalise(g: Grown) -> str:
    x = g.pick()
    shape = g.shapes[x]
    if len(shape) == 4 and g.draw(st.booleans()):
        if g.draw(st.booleans()):
            return g.node("LRN", x, size=g.draw(st.sampled_from([1, 3, 5])), alpha=0.1)
        return g.node("GlobalAveragePool", x)
    if not shape:
        return x
    scale, shift = g.weight(shape[-1], low=0.5), g.weight(shape[-1], low=-1.0)
    return g.node("LayerNormalization", x, scale, shift, epsilon=0.1)


def typed(g: Grown) -> str:
    """Arithmetic in another type on an input times a power of two, which no rounding can move."""
    x = g.node("Mul", g.draw(st.sampled_from(sorted(g.inputs))), g.constant(8))
    kinds = onnx.TensorProto
    kind = g.draw(st.sampled_from([kinds.INT8, kinds.INT32, kinds.INT64, kinds.BOOL, kinds.FLOAT16]))
    y = g.node("Cast", x, to=kind)
    if kind == kinds.BOOL:
        y = g.node("Xor", g.node("Not", y), y) if g.draw(st.booleans()) else g.node("Not", y)
    elif kind != kinds.INT8:
        y = g.node(g.draw(st.sampled_from(["Add", "Mul", "Sub"])), y, g.node("Cast", y, to=kind))
    return g.node("Cast", y, to=kinds.FLOAT)


def chosen(g: Grown) -> str:
    """By a comparison, of an input so that both sides decide alike, or the place of a largest element."""
    x = g.draw(st.sampled_from(sorted(g.inputs)))
    if g.draw(st.booleans()):
        axis = g.draw(st.integers(0, len(g.inputs[x]) - 1))
        place = g.node("ArgMax", x, axis=axis, select_last_index=g.draw(st.integers(0, 1)))
        return g.node("Cast", place, to=onnx.TensorProto.FLOAT)
    op = g.draw(st.sampled_from(["Less", "Equal", "GreaterOrEqual"]))
    return g.node("Where", g.node(op, x, g.constant(0)), x, g.constant(2))


STEPS = (
    *(conv,) * 3,
    *(pool, unary, typed, chosen, clip, transpose, reshape, flatten, shuffle, cut, product, normalise),
    *(pair, along) * 2,
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_random_graph_is_right_after_all_passes(tmp_path: Path, data: st.DataObject) -> None:
    g = Grown(data.draw)
    for _ in range(data.draw(st.integers(1, 10))):
        g.grow()
    if not g.nodes:
        return
    path = tmp_path / "m.onnx"
    onnx.save(g.model(), path)
    network = read(path)
    inputs = networks.inputs_of(network)
    wanted = networks.expected(path, inputs)
    networks.assert_same(networks.run(network, inputs), wanted)
    network = graph.optimise(network)
    assert_sound(network)
    networks.assert_same(networks.run(network, inputs), wanted)
