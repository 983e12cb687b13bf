"""Operators of onnxruntime's own domain, each written as ONNX's operators that compute the same.

Its optimiser writes them where it fuses several nodes into one, and its quantiser where there is
no operator of ONNX's for integers (onnxruntime, "Contrib Operators" for the domain com.microsoft,
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import onnx

from kernels.errors import InputError
from kernels.models.contrib import attention, fused, integers, recurrent
from kernels.models.contrib.body import OPSET, Body, Function

FUNCTIONS: Mapping[str, Function] = {
    name: write
    for module in (fused, attention, integers, recurrent)
    for name, write in module.FUNCTIONS.items()
}
"""By the operator's type."""


def body(
    node: onnx.NodeProto, types: Sequence[onnx.TypeProto], prefix: str
) -> tuple[list[onnx.NodeProto], dict[str, int]]:
    """The nodes that compute what `node` does, and the opsets that they are of.

    `types` are those of its inputs; names inside begin with `prefix`. InputError says what of it is not
    supported.
    """
    written = Body(node, types, prefix)
    results = FUNCTIONS[node.op_type](written)
    results = (results,) if isinstance(results, str) else results
    results = tuple(written("Identity", each) if each in written.given else each for each in results)
    names = dict(zip(results, node.output, strict=False))
    for name, result in zip_longest(node.output, results, fillvalue=""):
        if name and not result:
            raise InputError(f"its output '{name}' is not supported")
    needed = {result for result, name in zip(results, node.output, strict=False) if name}
    kept: list[onnx.NodeProto] = []
    for inner in reversed(written.nodes):
        if not needed.isdisjoint(inner.output):
            needed.update(inner.input)
            inner.output[:] = [names.get(name) or name for name in inner.output]
            inner.input[:] = [names.get(name) or name for name in inner.input]
            kept.append(inner)
    return kept[::-1], {"": OPSET}
