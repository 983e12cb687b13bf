"""Which of ONNX's own tests of its operators are in scope, and which inputs are known ahead.

`onnx.backend.test` makes them in process: a model of one node, or the body of the function
that ONNX defines the operator as (`..._expanded`), with inputs and expected outputs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

Array = NDArray[Any]
P = onnx.TensorProto
TYPES = {P.FLOAT, P.FLOAT16, P.BFLOAT16, P.INT8, P.UINT8, P.INT32, P.INT64, P.BOOL}
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
STATIC: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (2,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{f"Reduce{name}": (1,) for name in REDUCTIONS},
}
"""Inputs, by number, that say what shape the result has or which way it is computed: axes, shapes,
sizes, scales, repeats, starts, ends, steps, pads, k. A static build has them as constants, so
they become initialisers; everything else stays an input, indices and masks among them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, inputs by name, and the outputs that are due, in order, within rtol and atol."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    outputs: tuple[Array, ...]
    rtol: float
    atol: float

    @property
    def op(self) -> str:
        """The operator that is tested; of an expanded test its function's name in lower case."""
        return self.model.graph.node[0].op_type if len(self.model.graph.node) == 1 else self.name


@cache
def collected() -> tuple[Any, ...]:
    """All tests of operators that the onnx package has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some make their NaN by overflow
        return tuple(collect_testcases(None))


def in_scope(model: onnx.ModelProto) -> bool:
    """Static shapes, tensors of our element types, no control flow, no sequence, no optional."""
    graph = model.graph
    values = [value.type for value in (*graph.input, *graph.output)]
    return (
        all(
            kind.HasField("tensor_type")
            and kind.tensor_type.elem_type in TYPES
            and all(dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim)
            for kind in values
        )
        and all(tensor.data_type in TYPES for tensor in graph.initializer)
        and not any(node.op_type in CONTROL_FLOW for node in graph.node)
    )


@cache
def cases() -> dict[str, Case]:
    """Those in scope, by name."""
    return {case.name: case for case in _cases()}


def _cases() -> Iterator[Case]:
    whole = {test.name: test.model for test in collected()}
    for test in collected():
        if not in_scope(test.model):
            continue
        model = onnx.ModelProto()
        model.CopyFrom(test.model)
        ((inputs, outputs),) = test.data_sets
        given = dict(zip((value.name for value in model.graph.input), map(as_array, inputs), strict=True))
        unexpanded = whole.get(re.sub(r"_expanded.*", "", test.name), model)
        _bind(model, given, _static(unexpanded.graph.node))
        yield Case(
            name=test.name,
            model=model,
            inputs=given,
            outputs=tuple(map(as_array, outputs)),
            rtol=test.rtol,
            atol=test.atol,
        )


def as_array(value: Any) -> Array:
    """What a test has as an array, a number, or a tensor of ONNX's."""
    return np.asarray(numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)


def _static(nodes: Any) -> set[str]:
    return {
        node.input[number]
        for node in nodes
        for number in STATIC.get(node.op_type, ())
        if number < len(node.input)
    }


def _bind(model: onnx.ModelProto, given: dict[str, Array], names: set[str]) -> None:
    """Move inputs among the initialisers."""
    graph = model.graph
    kept = [value for value in graph.input if value.name not in names]
    for value in graph.input:
        if value.name in names:
            graph.initializer.append(numpy_helper.from_array(given.pop(value.name), value.name))
    del graph.input[:]
    graph.input.extend(kept)
