"""Networks that no package ships, made with seeded weights as exporters write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.networks import Array, generator, model, weights


class Graph:
    """Nodes and constants in the making; each method gives the name of its result."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        name = f"/{op}_{len(self.nodes)}"
        made = [f"{name}_output_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, made, name=name, **attributes))
        return made[0]

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant.{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype=dtype)
        return name

    def index(self, value: Any) -> str:
        return self.constant(value, np.int64)

    def weight(self, *shape: int, low: float | None = None, high: float = 1.5) -> str:
        name = f"{self.name}.weight.{len(self.constants)}"
        if low is None:
            self.constants[name] = weights(name, shape)
        else:
            self.constants[name] = generator(name).uniform(low, high, shape).astype(np.float32)
        return name

    def conv(
        self, x: str, channels: int, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> str:
        """A convolution and its batch normalisation."""
        attributes = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        y = self.node("Conv", x, self.weight(filters, channels // groups, kernel, kernel), **attributes)
        ends = [self.weight(filters, low=low, high=high) for low, high in RANGES]
        return self.node("BatchNormalization", y, *ends, epsilon=1e-3)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        name = self.weight(outputs, inputs)
        self.constants[name] = np.ascontiguousarray(self.constants[name].T) / np.float32(np.sqrt(2))
        y = self.node("MatMul", x, name)
        return self.node("Add", self.weight(outputs, low=-0.2, high=0.2), y)


RANGES = ((0.5, 1.5), (-0.2, 0.2), (-0.2, 0.2), (0.5, 1.5))
"""Scale, shift, mean and variance of batch normalisations."""

V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, repetitions and stride: Sandler et al., CVPR 2018, table 2."""


def mobilenet_v2(size: int = 224, width: float = 1.0, classes: int = 1000) -> onnx.ModelProto:
    """As torchvision's is exported; `width` below 1 for tests."""
    g = Graph("v2")

    def scaled(channels: int) -> int:
        return max(8, int(channels * width + 4) // 8 * 8)

    def relu6(x: str) -> str:
        return g.node("Clip", x, g.constant(0), g.constant(6))

    channels = scaled(32)
    x = relu6(g.conv("image", 3, channels, 3, 2))
    for expansion, full, count, first in V2:
        filters = scaled(full)
        for number in range(count):
            stride = first if number == 0 else 1
            y, inner = x, channels * expansion
            if expansion > 1:
                y = relu6(g.conv(y, channels, inner))
            y = relu6(g.conv(y, inner, inner, 3, stride, inner))
            y = g.conv(y, inner, filters)
            x = g.node("Add", x, y) if stride == 1 and channels == filters else y
            channels = filters
    last = max(1280, scaled(1280)) if width >= 1 else scaled(1280)
    x = relu6(g.conv(x, channels, last))
    x = g.node("Flatten", g.node("GlobalAveragePool", x), axis=1)
    x = g.node("Gemm", x, g.weight(classes, last), g.weight(classes, low=-0.2, high=0.2), transB=1)
    g.nodes[-1].output[0] = "scores"
    return model(g.nodes, {"image": (1, 3, size, size)}, ["scores"], g.constants, opset=17)


V3 = (
    # kernel, expanded, channels, squeeze, hard swish, stride: Howard et al., ICCV 2019, table 2
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
)


V3_LARGE = (
    # the same: table 1
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def mobilenet_v3(
    size: int = 224, classes: int = 1000, *, decomposed: bool = False, large: bool = False
) -> onnx.ModelProto:
    """MobileNet v3, small or large; `decomposed` as exporters of older opsets wrote its functions."""
    g = Graph("v3")

    def swish(x: str) -> str:
        if not decomposed:
            return g.node("HardSwish", x)
        y = g.node("Clip", g.node("Add", x, g.constant(3)), g.constant(0), g.constant(6))
        return g.node("Div", g.node("Mul", x, y), g.constant(6))

    def squeeze(x: str, channels: int) -> str:
        inner = max(8, channels // 4)
        if decomposed:
            y = g.node("ReduceMean", x, axes=[2, 3], keepdims=1)
        else:
            y = g.node("GlobalAveragePool", x)
        y = g.node("Conv", y, g.weight(inner, channels, 1, 1), g.weight(inner, low=-0.2, high=0.2))
        y = g.node("Relu", y)
        y = g.node("Conv", y, g.weight(channels, inner, 1, 1), g.weight(channels, low=-0.2, high=0.2))
        return g.node("Mul", g.node("HardSigmoid", y, alpha=1 / 6), x)

    channels = 16
    x = swish(g.conv("image", 3, channels, 3, 2))
    for kernel, inner, filters, squeezed, hard, stride in V3_LARGE if large else V3:
        y = x
        if inner != channels:
            y = g.conv(y, channels, inner)
            y = swish(y) if hard else g.node("Relu", y)
        y = g.conv(y, inner, inner, kernel, stride, inner)
        y = swish(y) if hard else g.node("Relu", y)
        y = squeeze(y, inner) if squeezed else y
        y = g.conv(y, inner, filters)
        x = g.node("Add", y, x) if stride == 1 and channels == filters else y
        channels = filters
    wide, hidden = (960, 1280) if large else (576, 1024)
    x = swish(g.conv(x, channels, wide))
    x = g.node("GlobalAveragePool", x)
    x = g.node("Reshape", x, g.constant([1, -1], np.int64))
    x = swish(g.node("Gemm", x, g.weight(hidden, wide), g.weight(hidden, low=-0.2, high=0.2), transB=1))
    g.node("Gemm", x, g.weight(classes, hidden), g.weight(classes, low=-0.2, high=0.2), transB=1)
    g.nodes[-1].output[0] = "scores"
    opset = 13 if decomposed else 17
    return model(g.nodes, {"image": (1, 3, size, size)}, ["scores"], g.constants, opset=opset)


class Bert(Graph):
    """An encoder as torch exports transformers' BertModel, sizes of batch and sequence dynamic."""

    def __init__(self, hidden: int, heads: int, *, decomposed: bool) -> None:
        super().__init__("bert")
        self.hidden, self.heads, self.decomposed = hidden, heads, decomposed

    def norm(self, x: str) -> str:
        scale, shift = self.weight(self.hidden, low=0.5), self.weight(self.hidden, low=-0.2, high=0.2)
        if not self.decomposed:
            return self.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)
        d = self.node("Sub", x, self.node("ReduceMean", x, axes=[-1]))
        variance = self.node("ReduceMean", self.node("Pow", d, self.constant(2)), axes=[-1])
        root = self.node("Sqrt", self.node("Add", variance, self.constant(1e-12)))
        return self.node("Add", self.node("Mul", self.node("Div", d, root), scale), shift)

    def gelu(self, x: str) -> str:
        if not self.decomposed:
            return self.node("Gelu", x)
        bell = self.node("Erf", self.node("Div", x, self.constant(np.sqrt(2))))
        return self.node(
            "Mul", self.node("Mul", x, self.node("Add", bell, self.constant(1))), self.constant(0.5)
        )

    def split(self, x: str) -> str:
        """[batch, sequence, hidden] to [batch, sequence, heads, hidden / heads], by a chain of shapes."""
        shape = self.node("Shape", x)
        lead = [
            self.node(
                "Unsqueeze",
                self.node("Gather", shape, self.constant(axis, np.int64)),
                self.constant([0], np.int64),
            )
            for axis in (0, 1)
        ]
        rest = self.constant([self.heads, self.hidden // self.heads], np.int64)
        return self.node("Reshape", x, self.node("Concat", *lead, rest, axis=0))

    def attention(self, x: str, mask: str) -> str:
        q, k, v = (self.split(self.linear(x, self.hidden, self.hidden)) for _ in range(3))
        q, v = (self.node("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
        k = self.node("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.node(
            "Div", self.node("MatMul", q, k), self.constant(np.sqrt(self.hidden // self.heads))
        )
        shares = self.node("Softmax", self.node("Add", scores, mask), axis=-1)
        y = self.node("Transpose", self.node("MatMul", shares, v), perm=[0, 2, 1, 3])
        y = self.node("Reshape", y, self.constant([0, 0, self.hidden], np.int64))
        return self.linear(y, self.hidden, self.hidden)


def bert(
    *, layers: int = 2, hidden: int = 32, heads: int = 4, vocabulary: int = 50, decomposed: bool = False
) -> onnx.ModelProto:
    """BERT with its pooler, `batch` and `sequence` dynamic. BERT-base: 12, 768, 12, 30522."""
    g = Bert(hidden, heads, decomposed=decomposed)
    words = g.node("Gather", g.weight(vocabulary, hidden, low=-1.0, high=1.0), "input_ids")
    kinds = g.node("Gather", g.weight(2, hidden, low=-1.0, high=1.0), "token_type_ids")
    length = g.node("Gather", g.node("Shape", "input_ids"), g.constant([1], np.int64))
    places = g.node(
        "Slice",
        g.constant(np.arange(512)[None], np.int64),
        g.constant([0], np.int64),
        length,
        g.constant([1], np.int64),
    )
    x = g.node(
        "Add", g.node("Add", words, kinds), g.node("Gather", g.weight(512, hidden, low=-1.0), places)
    )
    x = g.norm(x)
    mask = g.node("Unsqueeze", "attention_mask", g.constant([1, 2], np.int64))
    mask = g.node("Sub", g.constant(1), g.node("Cast", mask, to=onnx.TensorProto.FLOAT))
    mask = g.node("Mul", mask, g.constant(-10000))
    for _ in range(layers):
        x = g.norm(g.node("Add", g.attention(x, mask), x))
        y = g.linear(g.gelu(g.linear(x, hidden, 4 * hidden)), 4 * hidden, hidden)
        x = g.norm(g.node("Add", y, x))
    g.nodes[-1].output[0] = x = "last_hidden_state"
    first = g.node("Gather", x, g.constant(0, np.int64), axis=1)
    pooled = g.node("Gemm", first, g.weight(hidden, hidden), g.weight(hidden, low=-0.2, high=0.2), transB=1)
    g.nodes.append(helper.make_node("Tanh", [pooled], ["pooler_output"], name="/pooler/Tanh"))
    names = ("input_ids", "attention_mask", "token_type_ids")
    return model(
        g.nodes,
        dict.fromkeys(names, ("batch", "sequence")),
        ["last_hidden_state", "pooler_output"],
        g.constants,
        opset=13 if decomposed else 20,
        types=dict.fromkeys(names, onnx.TensorProto.INT64),
    )
