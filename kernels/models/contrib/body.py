"""What one node does, written down as nodes of ONNX's own operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kernels.errors import InputError
from kernels.models.onnx_file import plain

OPSET = 23
"""Of ONNX's operators in the bodies."""
REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Body:
    """What one node does, written down node by node."""

    def __init__(self, node: onnx.NodeProto, types: Sequence[onnx.TypeProto], prefix: str) -> None:
        """Begin with nothing; `types` are those of the node's inputs, and `prefix` begins names."""
        self._types, self._prefix = types, prefix
        self._attributes = {given.name: plain(given) for given in node.attribute}
        self.given = list(node.input)
        self.nodes: list[onnx.NodeProto] = []

    def inputs(self, count: int) -> list[str]:
        """The names of the first inputs, empty where one is not given."""
        return [*self.given, *[""] * count][:count]

    def shape(self, number: int) -> tuple[int, ...]:
        """An input's shape; InputError where it is missing."""
        if number >= len(self._types) or not self._types[number].HasField("tensor_type"):
            raise InputError(f"input {number} is missing")
        return tuple(dim.dim_value for dim in self._types[number].tensor_type.shape.dim)

    def kind(self, number: int) -> int:
        """ONNX's number of an input's element type."""
        self.shape(number)
        return int(self._types[number].tensor_type.elem_type)

    def attribute(self, key: str, *default: Any) -> Any:
        """An attribute's value; InputError where it is missing and there is no default."""
        if key not in self._attributes and not default:
            raise InputError(f"its attribute '{key}' is missing")
        return self._attributes.get(key, *default)

    def passed(self, *keys: str) -> dict[str, Any]:
        """Attributes that one of the nodes takes as they are given."""
        return {key: self._attributes[key] for key in keys if key in self._attributes}

    def several(self, count: int, op: str, *inputs: str, **attributes: Any) -> list[str]:
        """Write one of ONNX's operators down; what its results are named."""
        made = [f"{self._prefix}/{op}.{len(self.nodes)}.{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op, inputs, made, f"{self._prefix}/{op}.{len(self.nodes)}"))
        self.nodes[-1].attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items() if value is not None
        )
        return made

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The same for an operator of one result."""
        return self.several(1, op, *inputs, **attributes)[0]

    def constant(self, value: NDArray[Any]) -> str:
        """A constant."""
        return self("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def number(self, value: float, kind: int | None = None) -> str:
        """A scalar of an element type, or else of the one in which the node computes."""
        return self.constant(np.asarray(value, helper.tensor_dtype_to_np_dtype(kind or self._real())))

    def _real(self) -> int:
        """The first input's floating-point type."""
        kinds = [each.tensor_type.elem_type for each in self._types]
        return next((kind for kind in kinds if kind in REAL), TensorProto.FLOAT)

    def whole(self, *values: int) -> str:
        """Extents or axes."""
        return self.constant(np.array(values, np.int64))

    def sum(self, *terms: str) -> str:
        """The sum of those that are given, from left to right."""
        first, *rest = filter(None, terms)
        for term in rest:
            first = self("Add", first, term)
        return first

    def row(self, x: str, number: int) -> str:
        """What is at one place of the first axis."""
        return self("Gather", x, self.number(number, TensorProto.INT64), axis=0)

    def stacked(self, axis: int, *parts: str) -> str:
        """Tensors side by side along a new axis."""
        return self("Concat", *(self("Unsqueeze", part, self.whole(axis)) for part in parts), axis=axis)

    def transposed(self, x: str, *permutation: int) -> str:
        """A tensor with its axes in another order."""
        return self("Transpose", x, perm=permutation)

    def scaled(self, product: str, *scales: str) -> str:
        """Sums in int32 as the numbers that they stand for."""
        return self("Mul", self("Cast", product, to=TensorProto.FLOAT), self("Mul", *scales))


Function = Callable[[Body], str | tuple[str, ...]]
"""Writes a node's body; what its results are named, without a name one that is not supported."""


def same(op: str, *attributes: str) -> Function:
    """What ONNX and onnxruntime both have."""

    def write(f: Body) -> str:
        return f(op, *f.given, **f.passed(*attributes))

    return write


def channels_last(write: Function, *images: int) -> Function:
    """The same with channels last, of these inputs and of the result."""

    def written(f: Body) -> str:
        rank = len(f.shape(images[0]))
        first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
        for number in images:
            if number < len(f.given) and f.given[number]:
                f.given[number] = f.transposed(f.given[number], *first)
        return f.transposed(str(write(f)), *last)

    return written
