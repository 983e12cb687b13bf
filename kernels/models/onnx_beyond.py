"""Why operators that no family will take are refused."""

from __future__ import annotations

from collections.abc import Mapping

BEYOND: Mapping[str, str] = {
    **dict.fromkeys(
        ("NonMaxSuppression", "NonZero", "Unique"),
        "the shape of its result depends on the values of its inputs, which must be constant",
    ),
    **dict.fromkeys(
        (
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
        "its result is random, and a library's depend on their inputs alone; give the numbers as an input",
    ),
    **dict.fromkeys(
        ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
        "strings are not supported; a library's values are tensors of numbers",
    ),
}
"""By the operator's type, of ONNX's own domain."""
DOMAINS = {
    "com.microsoft.nchwc": "onnxruntime saved the model for one processor's vectors; "
    "let it save no more than ORT_ENABLE_EXTENDED gives, or take the model before",
}
"""By the domain."""
