"""A node of ONNX as the families of operators see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kernels.elements import numpy_type
from kernels.errors import InputError
from kernels.models import onnx_file
from kernels.models.onnx_sequences import Walk, hint
from kernels.operators import find_family
from kernels.program import ElementType, Role, Tensor

Array = NDArray[Any]


class View:
    """A node as its family sees it: `kernels.operators.node.Node`."""

    def __init__(self, walk: Walk, node: onnx.NodeProto, opset: int, outputs: tuple[str, ...]) -> None:
        """The node with its inputs as tensors."""
        self._walk, self._draft = walk, walk.draft
        self.op, self.opset, self.outputs = node.op_type, opset, outputs
        self._name = onnx_file.name_of(node)
        self._base = next((name for name in node.output if name), self._name)
        self._attributes = {given.name: onnx_file.plain(given) for given in node.attribute}
        self.inputs = tuple(walk.tensor(name) if name else None for name in node.input)
        self._first = len(self._draft.operators)

    def attribute(self, key: str, default: Any = None) -> Any:
        """An attribute's value: a number, text, a tuple of numbers, or an array."""
        return self._attributes.get(key, default)

    def given(self, number: int) -> Tensor:
        """An input that must be there."""
        tensor = self.inputs[number] if number < len(self.inputs) else None
        if tensor is None:
            raise InputError(f"input {number} is missing")
        if 0 in tensor.shape:
            raise InputError(f"'{tensor.name}' has the shape {list(tensor.shape)}, so no elements")
        return tensor

    def value(self, number: int) -> Array | None:
        """An input's value, if it is there and constant."""
        tensor = self.inputs[number] if number < len(self.inputs) else None
        return None if tensor is None else self._draft.constants.get(tensor.name)

    def known(self, number: int, what: str) -> Array:
        """An input's value; InputError where `what` is not constant."""
        value = self.value(number)
        if value is None:
            name = self.given(number).name
            raise InputError(f"its {what} ('{name}') must be constant{hint(self._draft)}")
        return value

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor's value is known when the library is built."""
        return tensor.role is Role.CONSTANT

    def constant_value(self, tensor: Tensor) -> Array | None:
        """A tensor's value, if it is constant."""
        return self._draft.constants.get(tensor.name)

    def call(
        self,
        kind: str,
        operands: Mapping[str, Tensor],
        attributes: Mapping[str, Any] | None = None,
        **entry: Any,
    ) -> Tensor:
        """The result of one of our operators; a constant is moved, and simple arithmetic done, at once."""
        values = [self._draft.constants.get(operand.name) for operand in operands.values()]
        if kind in MOVES and values[0] is not None:
            (words,) = (attributes or {}).values()
            return self.constant(MOVES[kind](values[0], words))
        numbers = [each for each in values if each is not None and each.dtype == np.float32]
        if kind in ARITHMETIC and len(numbers) == len(values):
            self._walk.count(prod(np.broadcast_shapes(*(each.shape for each in numbers))))
            with np.errstate(all="ignore"):
                return self.constant(ARITHMETIC[kind](*numbers))
        half = self._half(operands)
        if half is None:
            return self._call(kind, operands, attributes, **entry)
        own = half in find_family(kind).types or kind == "cast"
        wanted = half if own else ElementType.FLOAT32
        typed = {name: self._as(tensor, wanted) for name, tensor in operands.items()}
        y = self._call(kind, typed, attributes, **entry)
        return y if own or not y.dtype.floating else self._as(y, half)

    def _call(
        self,
        kind: str,
        operands: Mapping[str, Tensor],
        attributes: Mapping[str, Any] | None,
        **entry: Any,
    ) -> Tensor:
        return self._draft.call(self._name, f"{self._base}.{kind}", kind, operands, attributes, **entry)

    def _half(self, operands: Mapping[str, Tensor]) -> ElementType | None:
        """The half format of operands: of what is computed, or else of a constant."""
        kinds = [t.dtype for t in sorted(operands.values(), key=self.is_constant) if t.dtype.floating]
        return kinds[0] if kinds and kinds[0] is not ElementType.FLOAT32 else None

    def _as(self, tensor: Tensor, wanted: ElementType) -> Tensor:
        """A floating-point tensor in another format; a constant is converted at once."""
        if tensor.dtype is wanted or not tensor.dtype.floating:
            return tensor
        if self.is_constant(tensor):
            return self.constant(self._draft.constants[tensor.name].astype(numpy_type(wanted)))
        flat = tensor
        if not tensor.shape:
            flat = self._call("reshape", {"x": tensor}, {"shape": (1,)})
        words = {"x_type": tensor.dtype.value, "y_type": wanted.value}
        y = self._call("cast", {"x": flat}, words)
        return y if tensor.shape else self._call("reshape", {"x": y}, {"shape": ()})

    def is_unknown(self, number: int) -> bool:
        """Whether an input is there whose value the library gets when it runs."""
        tensor = self.inputs[number] if number < len(self.inputs) else None
        return tensor is not None and not self.is_constant(tensor)

    def constant(self, value: Array) -> Tensor:
        """A constant tensor."""
        return self._draft.constant(f"{self._base}.constant", value)

    def refuse(self, why: str) -> InputError:
        """The error that says what about this node is not supported; the reader adds its name."""
        return InputError(why)

    def settled(self, outputs: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, ...]:
        """The outputs, those that this node has made under the model's own names for them."""
        made = {name for operator in self._draft.operators[self._first :] for name in operator.outputs}
        found = list(outputs[: len(names)])
        own = [
            number
            for number, output in enumerate(found)
            if output.name in made and names[number] and output.role is Role.INTERNAL
        ]
        renamed = self._draft.rename([(found[number], names[number]) for number in own], self._first)
        for number, tensor in zip(own, renamed, strict=True):
            found[number] = tensor
        return tuple(found)


MOVES: Mapping[str, Any] = {
    "reshape": lambda value, shape: value.reshape(shape),
    "transpose": lambda value, permute: np.ascontiguousarray(value.transpose(permute)),
}
"""What is done to a constant when the model is read."""
ARITHMETIC: Mapping[str, Any] = {"add": np.add, "div": np.divide, "mul": np.multiply, "sub": np.subtract}
"""What is computed of two constants then, rounded to float32 as a kernel rounds."""
