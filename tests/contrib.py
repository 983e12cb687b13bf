"""Nodes of onnxruntime's own domain, as its optimiser writes them, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kernels.models.onnx_file import CONTRIB
from tests import networks

Array = NDArray[Any]


def real(name: str, *shape: int) -> Array:
    """Numbers of about one."""
    return networks.generator(name).standard_normal(shape).astype(np.float32)


def whole(name: str, kind: Any, *shape: int) -> Array:
    """Integers of all sizes."""
    info = np.iinfo(kind)
    return networks.generator(name).integers(info.min, info.max, shape, endpoint=True).astype(kind)


def step(value: float) -> Array:
    """A scale."""
    return np.array(value, np.float32)


def zero(value: int, kind: Any = np.uint8) -> Array:
    """A zero point."""
    return np.array(value, kind)


class Case:
    """A node of that domain, what it is given, and which of that is not known before."""

    def __init__(
        self,
        op: str,
        *inputs: Array | None,
        free: int = 1,
        outputs: int = 1,
        word: str = "",
        domain: str = CONTRIB,
        version: int = 17,
        **words: Any,
    ) -> None:
        """The first `free` inputs are the model's own, the others are constants."""
        self.domain, self.version = domain, version
        self.op, self.free, self.outputs, self.words = op, free, outputs, words
        self.inputs = inputs
        self.name = f"{op}-{word}" if word else op

    def model(self, kinds: Mapping[str, int]) -> onnx.ModelProto:
        """The model of this node alone; `kinds` are the element types of outputs, where they are known."""
        names = ["" if value is None else f"i{number}" for number, value in enumerate(self.inputs)]
        outputs = [f"o{number}" for number in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, "node", domain=self.domain, **self.words)
        tensors = {
            n: numpy_helper.from_array(v, n)
            for n, v in zip(names, self.inputs, strict=True)
            if v is not None
        }
        own = set(names[: self.free])
        made = helper.make_graph(
            [node],
            "test",
            [helper.make_tensor_value_info(n, t.data_type, t.dims) for n, t in tensors.items() if n in own],
            [
                helper.make_tensor_value_info(n, kinds[n], None)
                if n in kinds
                else helper.make_empty_tensor_value_info(n)
                for n in outputs
            ],
            [t for n, t in tensors.items() if n not in own],
        )
        opsets = [helper.make_opsetid("", self.version), helper.make_opsetid(self.domain or CONTRIB, 1)]
        return helper.make_model(made, opset_imports=opsets, ir_version=8)

    def typed_model(self) -> onnx.ModelProto:
        """The same with the types of outputs, as onnxruntime infers them."""
        session = networks.session(self.model({}).SerializeToString())
        kinds = {each.name: KINDS[each.type] for each in session.get_outputs()}
        return self.model(kinds)

    def given(self) -> dict[str, Array]:
        """The model's own inputs."""
        return {f"i{n}": v for n, v in enumerate(self.inputs[: self.free]) if v is not None}


KINDS = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(int32)": onnx.TensorProto.INT32,
    "tensor(int8)": onnx.TensorProto.INT8,
    "tensor(uint8)": onnx.TensorProto.UINT8,
}
"""Element types by onnxruntime's names for them."""
X = real("x", 2, 3, 6, 7)
W = real("w", 4, 3, 3, 3)
T = real("t", 2, 5, 8)
FUSED = [
    *(
        Case(
            "FusedConv",
            X,
            W,
            real("bias", 4),
            activation=key,
            word=key,
            pads=[1, 1, 1, 1],
            **({"activation_params": list(words)} if words else {}),
        )
        for key, words in {
            "Relu": (),
            "Clip": (-0.5, 2.0),
            "LeakyRelu": (0.1,),
            "HardSigmoid": (0.2, 0.4),
            "Sigmoid": (),
            "Tanh": (),
        }.items()
    ),
    Case("FusedConv", X, W, None, real("z", 2, 4, 4, 5), activation="Relu", word="added"),
    Case("FusedConv", X, W, real("bias", 4), strides=[2, 2], auto_pad="SAME_UPPER", word="strided"),
    *(
        Case(
            "FusedGemm",
            real("a", 3, 5),
            real("b", 4, 5),
            real("c", 4),
            transB=1,
            alpha=0.5,
            beta=2.0,
            activation=key,
            word=key,
            **words,
        )
        for key, words in {
            "Relu": {},
            "LeakyRelu": {"activation_alpha": 0.2},
            "HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.4},
            "Tanh": {},
            "Elu": {"activation_alpha": 0.7},
            "Softplus": {},
            "Selu": {"activation_alpha": 1.5, "activation_gamma": 1.1},
            "ThresholdedRelu": {"activation_alpha": 0.3},
            "Softsign": {},
        }.items()
    ),
    Case("FusedMatMul", real("a", 2, 4, 3), real("b", 2, 5, 4), transA=1, transB=1, alpha=0.25, free=2),
    Case("FusedMatMul", real("a", 3, 2, 4), real("b", 2, 4, 5), transBatchA=1, free=2, word="batch"),
    Case("FusedMatMul", real("a", 4), real("b", 4, 5), alpha=2.0, word="vector"),
    Case(
        "FusedMatMul",
        real("a", 3, 2, 6, 4),
        real("b", 5, 2, 6, 4),
        transBatchA=1,
        transBatchB=1,
        transB=1,
        free=2,
        word="batches",
    ),
    Case("LayerNormalization", T, real("g", 8), real("b", 8), axis=-1, epsilon=1e-3, domain="", version=12),
    Case(
        *("SimplifiedLayerNormalization", T.astype(np.float16), real("g", 8)),
        axis=-1,
        epsilon=1e-6,
        domain="",
        version=12,
        word="half",
    ),
    Case("SimplifiedLayerNormalization", T, real("g", 8), axis=-1, epsilon=1e-6, domain="", version=12),
    Case("TransposeMatMul", real("a", 4, 3), real("b", 4, 5), transA=1),
    Case("Gelu", X),
    Case("BiasGelu", T, real("bias", 8)),
    Case("FastGelu", T, real("bias", 8)),
    Case("FastGelu", T, word="alone"),
    Case("QuickGelu", T),
    Case("QuickGelu", T, alpha=1.0, word="swish"),
    Case(
        "SkipLayerNormalization",
        T,
        real("u", 2, 5, 8),
        real("g", 8),
        real("b", 8),
        real("bias", 8),
        free=2,
        epsilon=1e-5,
    ),
    Case("SkipLayerNormalization", T, real("u", 5, 8), real("g", 8), free=2, word="rows"),
    Case(
        "SkipSimplifiedLayerNormalization",
        T,
        real("u", 2, 5, 8),
        real("g", 8),
        real("bias", 8),
        free=2,
        epsilon=1e-6,
    ),
    Case(
        "NhwcMaxPool",
        whole("x", np.uint8, 1, 6, 7, 3),
        kernel_shape=[3, 2],
        strides=[2, 2],
        pads=[1, 1, 1, 0],
    ),
    Case("Trilu", real("t", 2, 4, 5), np.array(1, np.int64), upper=0),
    Case("Pad", X, np.array([0, 0, 1, 2, 0, 0, 3, 1], np.int64), step(0.5), mode="constant"),
    Case("GatherND", T, np.array([[1, 4], [0, 2]], np.int64)),
    Case(
        "GridSample",
        X,
        np.clip(real("grid", 2, 4, 5, 2), -1, 1),
        align_corners=1,
        mode="bilinear",
        padding_mode="zeros",
        free=2,
    ),
]


def few_bits(*, bits: int, terms: int, zeros: str, block: int = 16, level: int = 0) -> Case:
    """Weights of few bits, with zero points that are packed alike, numbers, or the middle."""
    rows, blocks = 6, -(-terms // block)
    packed = whole("b", np.uint8, rows, blocks, block * bits // 8)
    scales = np.abs(real("s", rows, blocks)) * 0.1
    shift = {
        "": None,
        "packed": whole("z", np.uint8, rows, -(-blocks * bits // 8)),
        "float": np.round(np.abs(real("z", rows, blocks)) * 3),
    }[zeros]
    return Case(
        "MatMulNBits",
        real("a", 2, 3, terms),
        packed,
        scales,
        shift,
        K=terms,
        N=rows,
        bits=bits,
        block_size=block,
        accuracy_level=level,
        word=f"{bits}_{terms}_{zeros}_{level}",
    )


FUSED += [
    few_bits(bits=4, terms=48, zeros=""),
    few_bits(bits=4, terms=48, zeros="", level=4),
    few_bits(bits=4, terms=40, zeros="packed"),
    few_bits(bits=4, terms=32, zeros="float"),
    few_bits(bits=8, terms=32, zeros="packed"),
    few_bits(bits=2, terms=64, zeros="", block=16),
]

IDS = np.array([[1, 2, 3, 0], [6, 5, 4, 0]], np.int32)
SEGMENTS = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32)
TABLES = (real("words", 7, 8), real("positions", 6, 8), real("segments", 2, 8))
FUSED += [
    Case(
        "EmbedLayerNormalization",
        IDS,
        SEGMENTS,
        *TABLES,
        real("g", 8),
        real("b", 8),
        np.array([[1, 1, 2, 0], [1, 1, 1, 1]], np.int32),
        free=2,
        outputs=2,
    ),
    Case(
        "EmbedLayerNormalization",
        IDS,
        None,
        TABLES[0],
        TABLES[1],
        None,
        real("g", 8),
        real("b", 8),
        None,
        np.array([[3, 2, 1, 0]], np.int32),
        free=1,
        outputs=3,
        word="positions",
    ),
    Case(
        "QEmbedLayerNormalization",
        IDS,
        SEGMENTS,
        *(whole(n, np.uint8, r, 8) for n, r in (("w", 7), ("p", 6), ("s", 2))),
        whole("g", np.uint8, 8),
        whole("b", np.uint8, 8),
        None,
        *(step(s) for s in (0.01, 0.02, 0.03, 0.04, 0.05)),
        *(zero(z) for z in (120, 130, 110, 10, 128)),
        free=2,
        outputs=2,
    ),
]
