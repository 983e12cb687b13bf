"""Nodes of attention in onnxruntime's own domain, and what they are given."""

from __future__ import annotations

import numpy as np

from tests.contrib import Case, T, real, step, whole, zero

QKV, QKV_BIAS = real("qkv", 8, 24) * 0.5, real("qkv_bias", 24)
MASKS = {
    "none": None,
    "ends": np.array([3, 5], np.int32),
    "begins": np.array([4, 5, 1, 0], np.int32),
    "keys": np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], np.int32),
    "pairs": (np.arange(50).reshape(2, 5, 5) % 3 != 0).astype(np.int32),
}
ATTENTION = [
    *(
        Case("Attention", T, QKV, QKV_BIAS, mask, num_heads=2, word=key, free=4)
        for key, mask in MASKS.items()
    ),
    *(
        Case("Attention", T, QKV, QKV_BIAS, mask, num_heads=2, unidirectional=1, word=f"causal_{key}")
        for key, mask in MASKS.items()
    ),
    Case(
        "Attention",
        T,
        real("qkv", 8, 20),
        real("b", 20),
        None,
        None,
        real("added", 2, 2, 5, 5),
        num_heads=2,
        qkv_hidden_sizes=[8, 8, 4],
        scale=0.7,
        word="sizes",
    ),
    Case(
        "Attention",
        T,
        QKV,
        QKV_BIAS,
        None,
        real("past", 2, 2, 2, 3, 4),
        num_heads=2,
        outputs=2,
        word="past",
        free=5,
    ),
    Case(
        "Attention",
        T,
        QKV,
        QKV_BIAS,
        np.array([[1, 1, 0, 1, 0, 1, 1, 1]] * 2, np.int32),
        real("past", 2, 2, 2, 3, 4),
        num_heads=2,
        outputs=2,
        word="past_mask",
        unidirectional=1,
        free=5,
    ),
    *(
        Case(
            "QAttention",
            whole("x", np.uint8, 2, 5, 8),
            whole("w", np.int8, 8, 24),
            QKV_BIAS,
            step(0.02),
            step(0.01),
            mask,
            zero(128),
            zero(0, np.int8),
            num_heads=2,
            word=key,
        )
        for key, mask in MASKS.items()
        if key in ("none", "ends", "keys")
    ),
    Case("MultiHeadAttention", T, real("k", 2, 6, 8), real("v", 2, 6, 4), num_heads=2, free=3),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 6, 8),
        real("v", 2, 6, 8),
        real("b", 24),
        num_heads=2,
        free=3,
        word="bias",
    ),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 6, 8),
        real("v", 2, 6, 8),
        real("b", 24),
        np.array([4, 6], np.int32),
        num_heads=2,
        free=3,
        word="ends",
    ),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 6, 8),
        real("v", 2, 6, 8),
        None,
        np.array([[1, 1, 0, 1, 0, 1]] * 2, np.int32),
        real("added", 1, 2, 5, 6),
        num_heads=2,
        free=6,
        word="keys",
        mask_filter_value=-100.0,
    ),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 5, 8),
        real("v", 2, 5, 8),
        num_heads=2,
        unidirectional=1,
        free=3,
        word="causal",
    ),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 2, 6, 4),
        real("v", 2, 2, 6, 4),
        num_heads=2,
        free=3,
        outputs=3,
        word="heads",
    ),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 2, 6, 4),
        real("v", 2, 2, 6, 4),
        real("b", 24),
        num_heads=2,
        free=3,
        word="heads_bias",
    ),
    Case(
        "MultiHeadAttention",
        T,
        real("k", 2, 5, 8),
        real("v", 2, 5, 8),
        None,
        None,
        None,
        real("pk", 2, 2, 3, 4),
        real("pv", 2, 2, 3, 4),
        num_heads=2,
        outputs=3,
        free=8,
        word="past",
    ),
    *(
        Case(
            *("Attention", T[:1], QKV, QKV_BIAS, np.array([[0, 0, 1, 1, 1]], np.int32)),
            num_heads=2,
            unidirectional=1,
            mask_filter_value=value,
            word=f"left_{value:.0e}",
        )
        for value in (-1e4, float(np.finfo(np.float32).min))
    ),
    Case(
        "RotaryEmbedding",
        T,
        np.array([[0, 1, 2, 3, 4], [3, 2, 1, 0, 5]], np.int64),
        real("c", 6, 2),
        real("s", 6, 2),
        free=2,
    ),
    Case(
        "RotaryEmbedding",
        T,
        np.array([1], np.int64),
        real("c", 6, 2),
        real("s", 6, 2),
        interleaved=1,
        word="one",
    ),
    Case(
        "RotaryEmbedding",
        real("x", 2, 2, 5, 4),
        np.array([1], np.int64),
        real("c", 6, 2),
        real("s", 6, 2),
        word="heads",
    ),
    Case(
        "RotaryEmbedding",
        real("x", 2, 5, 16),
        np.array([1], np.int64),
        real("c", 6, 2),
        real("s", 6, 2),
        num_heads=2,
        rotary_embedding_dim=4,
        word="part",
    ),
]
