"""Attention and what belongs to it, as nodes of onnxruntime's have it in one."""

from __future__ import annotations

import numpy as np

from kernels.errors import InputError
from kernels.models.contrib.body import Body, Function

ROWS, HEADS = 3, 4
"""Dimensions of (batch, length, width), and of (batch, heads, length, depth)."""
LOWEST = float(np.finfo(np.float32).min)


def _attention(f: Body) -> tuple[str, ...]:
    x, weights, bias, mask, past, added = f.inputs(6)
    projected = f.sum(f("MatMul", x, weights), bias)
    return _self_attention(f, projected, f.shape(1)[-1], (3, mask), (4, past), added)


def _quantized_attention(f: Body) -> tuple[str, ...]:
    x, weights, bias, x_scale, w_scale, mask, x_zero, w_zero, past = f.inputs(9)
    product = f("MatMulInteger", x, weights, x_zero, w_zero)
    projected = f.sum(f.scaled(product, x_scale, w_scale), bias)
    return _self_attention(f, projected, f.shape(1)[-1], (5, mask), (8, past), "")


def _self_attention(
    f: Body, projected: str, width: int, mask: tuple[int, str], past: tuple[int, str], added: str
) -> tuple[str, ...]:
    """Attention of queries, keys and values that lie one after the other in the last axis."""
    if f.attribute("do_rotary", 0) or f.attribute("past_present_share_buffer", 0):
        raise InputError("positions by rotation, and a buffer shared with the past, are not supported")
    batch, length, _ = f.shape(0)
    heads = f.attribute("num_heads")
    sizes = f.attribute("qkv_hidden_sizes", ()) or (width // 3,) * 3
    apart = f.several(3, "Split", projected, f.whole(*sizes), axis=-1)
    q, k, v = (
        _by_heads(f, each, (batch, length, size), heads) for each, size in zip(apart, sizes, strict=True)
    )
    number, before = past
    ago = 0
    if before:
        ago = f.shape(number)[3]
        k, v = (f("Concat", f.row(before, at), each, axis=2) for at, each in enumerate((k, v)))
    present = f.stacked(0, k, v)
    number, given = mask
    masks = (_masked(f, number, length + ago) if given else "", added)
    extents = (batch, heads, length, length + ago, sizes[0] // heads, sizes[2] // heads)
    return _attended(f, (q, k, v), masks, extents), present


def _multi_head_attention(f: Body) -> tuple[str, ...]:
    query, key, value, bias, mask, added, past_key, past_value, *others = f.inputs(10)
    if any(others):
        raise InputError("a buffer shared with the past is not supported")
    if not key or not value or {len(f.shape(number)) for number in range(3)} - {ROWS, HEADS}:
        raise InputError("queries, keys and values in one tensor are not supported")
    heads = f.attribute("num_heads")
    shapes = [f.shape(number) for number in range(3)]
    widths = [shape[-1] * (heads if len(shape) == HEADS else 1) for shape in shapes]
    biases = f.several(3, "Split", bias, f.whole(*widths), axis=0) if bias else [""] * 3
    q, k, v = (
        each if len(shape) == HEADS else _by_heads(f, f.sum(each, own), shape, heads)
        for each, own, shape in zip((query, key, value), biases, shapes, strict=True)
    )
    total = shapes[1][-2]
    if f.attribute("unidirectional", 0) and total != shapes[0][1]:
        raise InputError("tokens that see those before them, and other tokens as keys, are not supported")
    if past_key:
        total += f.shape(6)[2]
        k, v = (f("Concat", *pair, axis=2) for pair in ((past_key, k), (past_value, v)))
    masks = (_masked(f, 4, total) if mask else "", added)
    batch, length, _ = shapes[0]
    extents = (batch, heads, length, total, widths[0] // heads, widths[2] // heads)
    return _attended(f, (q, k, v), masks, extents), k, v


def _by_heads(f: Body, x: str, shape: tuple[int, ...], heads: int) -> str:
    """Rows of all heads as matrices, one for each head."""
    batch, length, width = shape
    return f.transposed(f("Reshape", x, f.whole(batch, length, heads, width // heads)), 0, 2, 1, 3)


def _masked(f: Body, number: int, total: int) -> str:
    """What is added to scores where a mask hides keys: one of lengths, of begins too, or of each key."""
    name, shape, batch = f.given[number], f.shape(number), f.shape(0)[0]
    if len(shape) == 1 and shape[0] in (batch, 2 * batch):
        places = f.constant(np.arange(total, dtype=np.int32)[None])
        ends, *begins = f.several(shape[0] // batch, "Split", name, axis=0, num_outputs=shape[0] // batch)
        shown = f("Less", places, f("Unsqueeze", ends, f.whole(1)))
        for begin in begins:
            shown = f("And", shown, f("GreaterOrEqual", places, f("Unsqueeze", begin, f.whole(1))))
    elif len(shape) <= ROWS and shape[-1] == total:
        shown = f("Greater", name, f.number(0, f.kind(number)))
    else:
        raise InputError(f"a mask of shape {list(shape)} is not supported")
    hidden = f.number(f.attribute("mask_filter_value", -10000.0))
    added = f("Where", shown, f.number(0.0), hidden)
    rows = shape[1] if len(shape) == ROWS else 1
    return f("Reshape", added, f.whole(batch, 1, rows, total))


def _attended(
    f: Body,
    sides: tuple[str, str, str],
    masks: tuple[str, str],
    extents: tuple[int, int, int, int, int, int],
) -> str:
    """Attention of queries, keys and values, by heads (batch, heads, length, depth).

    `masks` are what hides keys, and what else is added to scores; either may be none.
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2.
    """
    q, k, v = sides
    mask, added = masks
    batch, heads, length, total, depth, width = extents
    scale = f.attribute("scale", 0.0) or depth**-0.5
    scores = f("Mul", f("MatMul", q, f.transposed(k, 0, 1, 3, 2)), f.number(scale))
    if f.attribute("unidirectional", 0):
        later = np.triu(np.ones((length, total), bool), 1 + total - length)
        mask = f("Where", f.constant(later), f.number(LOWEST), mask or f.number(0.0))
    weights = f("Softmax", f.sum(scores, mask, added), axis=-1)
    together = f.transposed(f("MatMul", weights, v), 0, 2, 1, 3)
    return f("Reshape", together, f.whole(batch, length, heads * width))


def _rotary_embedding(f: Body) -> str:
    """ONNX has the same, with positions in another place; of one position others count from there."""
    x, positions, cosines, sines = f.inputs(4)
    if f.attribute("is_packed_batching", 0) or f.attribute("scale", 1.0) != 1.0:
        raise InputError("texts of several lengths in one, and scales, are not supported")
    shape = f.shape(0)
    heads = f.attribute("num_heads", 0)
    if not heads and len(shape) == ROWS:
        heads = shape[2] // (2 * f.shape(2)[1])
    if len(f.shape(1)) == 1:
        length = shape[-2]
        ahead = f.constant(np.arange(length, dtype=np.int64)[None])
        positions = f("Expand", f("Add", ahead, positions), f.whole(shape[0], length))
    keys = f.passed("interleaved", "rotary_embedding_dim")
    return f("RotaryEmbedding", x, cosines, sines, positions, num_heads=heads or None, **keys)


FUNCTIONS: dict[str, Function] = {
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "QAttention": _quantized_attention,
    "RotaryEmbedding": _rotary_embedding,
}
"""By the operator's type."""
