"""Nodes that onnxruntime's optimiser makes of several: activations, products, normalisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from onnx import TensorProto

from kernels.errors import InputError
from kernels.models.contrib.body import Body, Function, same

CONVOLUTION = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
PARAMETERS = ("activation_alpha", "activation_beta", "activation_gamma")
BITS = (2, 4, 8)


def _activated(f: Body, x: str, key: str, parameters: Sequence[float]) -> str:
    """What a fused node does last, with the parameters that are given in the order of ONNX's attributes."""
    if not key:
        return x
    if key == "Clip":
        least, most = parameters
        return f("Clip", x, f.number(least), f.number(most))
    if key not in ACTIVATIONS:
        raise InputError(f"the activation '{key}' is not supported")
    return f(key, x, **dict(zip(ACTIVATIONS[key], map(float, parameters), strict=False)))


ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""The attributes of activations that nodes are fused with."""


def _gelu(f: Body) -> str:
    x, bias = f.inputs(2)
    return f("Gelu", f.sum(x, bias))


def _fast_gelu(f: Body) -> str:
    x, bias = f.inputs(2)
    return f("Gelu", f.sum(x, bias), approximate="tanh")


def _quick_gelu(f: Body) -> str:
    (x,) = f.inputs(1)
    scaled = f("Mul", x, f.number(f.attribute("alpha", 1.702)))
    return f("Mul", x, f("Sigmoid", scaled))


def _fused_conv(f: Body) -> str:
    x, w, bias, added = f.inputs(4)
    y = f.sum(f("Conv", x, w, bias, **f.passed(*CONVOLUTION)), added)
    return _activated(f, y, f.attribute("activation", ""), f.attribute("activation_params", ()))


def _fused_gemm(f: Body) -> str:
    y = f("Gemm", *f.inputs(3), **f.passed("alpha", "beta", "transA", "transB"))
    return _activated(f, y, f.attribute("activation", ""), list(f.passed(*PARAMETERS).values()))


def _fused_matmul(f: Body) -> str:
    if f.attribute("transA", 0) and len(f.shape(1)) == 1:
        raise InputError(
            "a transposed matrix by a vector is not supported, for onnxruntime gives another product"
        )
    factors = []
    for number, side in enumerate("AB"):
        name, rank = f.given[number], len(f.shape(number))
        axes = list(range(rank))
        if f.attribute(f"transBatch{side}", 0) and rank > 1:
            axes = [*axes[1:-1], 0, axes[-1]]
        if f.attribute(f"trans{side}", 0) and rank > 1:
            axes[-2:] = axes[:-3:-1]
        factors.append(f.transposed(name, *axes) if axes != sorted(axes) else name)
    y = f("MatMul", *factors)
    if f.attribute("alpha", 1.0) != 1.0:
        y = f("Mul", y, f.number(f.attribute("alpha")))
    return y


def _matmul_nbits(f: Body) -> str:
    """Weights of few bits are unpacked when the library is built."""
    a, b, scales, zeros, groups, bias = f.inputs(6)
    bits, rows, terms = f.attribute("bits", 4), f.attribute("N"), f.attribute("K")
    block = f.attribute("block_size")
    if groups or bits not in BITS or f.attribute("weight_prepacked", 0):
        raise InputError("weights of 2, 4 or 8 bits that are not reordered are supported")
    blocks = -(-terms // block)
    numbers = f("Cast", _unpacked(f, b, bits, (rows, blocks, block)), to=f.kind(0))
    if not zeros:
        shift = f.number(1 << (bits - 1))
    elif f.kind(3) == TensorProto.UINT8:
        held = f.shape(3)[-1] * 8 // bits if len(f.shape(3)) > 1 else prod(f.shape(3)) // rows * 8 // bits
        unpacked = f("Slice", _unpacked(f, zeros, bits, (rows, held)), *map(f.whole, (0, blocks, 1)))
        shift = f("Cast", f("Reshape", unpacked, f.whole(rows, blocks, 1)), to=f.kind(0))
    else:
        shift = f("Reshape", zeros, f.whole(rows, blocks, 1))
    factor = f("Reshape", scales, f.whole(rows, blocks, 1))
    weights = f("Reshape", f("Mul", f("Sub", numbers, shift), factor), f.whole(rows, blocks * block))
    if terms != blocks * block:
        weights = f("Slice", weights, f.whole(0), f.whole(terms), f.whole(1))
    return f.sum(f("MatMul", a, f.transposed(weights, 1, 0)), bias)


def _unpacked(f: Body, packed: str, bits: int, shape: tuple[int, ...]) -> str:
    """Numbers of few bits as bytes; of each byte the lowest bits come first."""
    shifts = f.constant(np.arange(0, 8, bits).astype(np.uint8))
    apart = f("Reshape", packed, f.whole(*shape[:-1], shape[-1] * bits // 8, 1))
    moved = f("BitShift", apart, shifts, direction="RIGHT")
    return f(
        "Reshape", f("BitwiseAnd", moved, f.number((1 << bits) - 1, TensorProto.UINT8)), f.whole(*shape)
    )


def _skip_layer_normalization(f: Body) -> tuple[str, ...]:
    x, skip, gamma, beta, bias = f.inputs(5)
    total = f.sum(x, skip, bias)
    return _normalized(f, total, gamma, beta), "", "", total


def _skip_rms_normalization(f: Body) -> tuple[str, ...]:
    x, skip, gamma, bias = f.inputs(4)
    total = f.sum(x, skip, bias)
    y = f("RMSNormalization", total, gamma, axis=-1, epsilon=f.attribute("epsilon", 1e-12))
    return y, "", "", total


def _rms_normalization(f: Body) -> str:
    x, gamma = f.inputs(2)
    words = f.passed("axis", "epsilon", "stash_type")
    if f.kind(0) == f.kind(1):
        return f("RMSNormalization", x, gamma, **words)
    wide = (f("Cast", each, to=TensorProto.FLOAT) for each in (x, gamma))
    return f("Cast", f("RMSNormalization", *wide, **words), to=f.kind(1))


def _normalized(f: Body, x: str, gamma: str, beta: str) -> str:
    return f("LayerNormalization", x, gamma, beta, axis=-1, epsilon=f.attribute("epsilon", 1e-12))


def _embed_layer_normalization(f: Body) -> tuple[str, ...]:
    words, segments, word, position, segment, gamma, beta, mask, positions = f.inputs(9)
    tables = (word, position, segment)
    return _embedded(f, (words, positions, segments), tables, (gamma, beta), mask)


def _quantized_embed_layer_normalization(f: Body) -> tuple[str, ...]:
    words, segments, word, position, segment, gamma, beta, mask, *parameters = f.inputs(18)
    tables = [
        table and f("DequantizeLinear", table, scale, zero)
        for table, scale, zero in zip(
            (word, position, segment, gamma, beta), parameters[:5], parameters[5:], strict=True
        )
    ]
    return _embedded(f, (words, "", segments), tables[:3], tables[3:], mask)[:2]


def _embedded(
    f: Body, numbers: Sequence[str], tables: Sequence[str], parameters: Sequence[str], mask: str
) -> tuple[str, ...]:
    """Rows of tables of words, positions and segments, summed up and normalised; and how long texts are."""
    batch, length = f.shape(0)
    words, positions, segments = numbers
    positions = positions or f.constant(np.arange(length, dtype=np.int64)[None])
    rows = [
        f("Gather", table, chosen)
        for table, chosen in zip(tables, (words, positions, segments), strict=True)
        if table
    ]
    total = f.sum(*rows)
    if not mask:
        lengths = f.constant(np.zeros(batch, np.int32))
    else:
        shown = f("Equal", mask, f.number(1, f.kind(7)))
        lengths = f("ReduceSum", f("Cast", shown, to=TensorProto.INT32), f.whole(1), keepdims=0)
    return _normalized(f, total, *parameters), lengths, total


FUNCTIONS: dict[str, Function] = {
    "BiasGelu": _gelu,
    "EmbedLayerNormalization": _embed_layer_normalization,
    "FastGelu": _fast_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "GatherND": same("GatherND"),
    "Gelu": _gelu,
    "GridSample": same("GridSample", "align_corners", "mode", "padding_mode"),
    "LayerNormalization": same("LayerNormalization", "axis", "epsilon", "stash_type"),
    "MatMulNBits": _matmul_nbits,
    "Pad": same("Pad", "mode"),
    "QEmbedLayerNormalization": _quantized_embed_layer_normalization,
    "QuickGelu": _quick_gelu,
    "SimplifiedLayerNormalization": _rms_normalization,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_rms_normalization,
    "TransposeMatMul": _fused_matmul,
    "Trilu": same("Trilu", "upper"),
}
"""By the operator's type."""
