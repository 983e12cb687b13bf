"""Small networks, built by hand: what a reader and the passes after it would give."""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec
import numpy as np

from kernels.operators import find_family
from kernels.program import Network, Operator, Program, Role, Tensor


class Sketch:
    """A network in the making; every method gives the name of the tensor that it makes."""

    def __init__(self, name: str) -> None:
        """`name` is the library's."""
        self.name = name
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []
        self.constants: dict[str, Any] = {}
        self._generator = np.random.default_rng(7)

    def tensor(self, name: str, shape: tuple[int, ...], role: Role, **more: Any) -> str:
        self.tensors[name] = Tensor(name=name, shape=shape, role=role, **more)
        return name

    def input(self, name: str, *shape: int, **more: Any) -> str:
        return self.tensor(name, shape, Role.INPUT, **more)

    def constant(self, name: str, *shape: int) -> str:
        """Values whose products with a row of the rest do not grow."""
        scale = 1.7 / np.sqrt(max(1, prod(shape[1:])))
        return self.value(name, (scale * self._generator.uniform(-1, 1, shape)).astype(np.float32))

    def value(self, name: str, array: Any) -> str:
        self.constants[name] = array
        return self.tensor(name, array.shape, Role.CONSTANT)

    def operator(self, name: str, kind: str, given: dict[str, str], group: str = "", **entry: Any) -> str:
        """An operator as its family defines it for the entry; inputs by the family's names."""
        family = find_family(kind)
        defined = family.define(msgspec.convert({"name": "k", "op": kind, **entry}, family.entry))
        result = self.tensor(f"{name}:y", defined.output.shape, Role.INTERNAL, layout=defined.output.layout)
        self.operators.append(
            Operator(
                name=name,
                kind=kind,
                inputs=tuple(given.values()),
                outputs=(result,),
                operands=(*given, defined.output.name),
                attributes=defined.attributes,
                group=group,
            )
        )
        return result

    def fuse(self, name: str, kind: str, value: str, second: str = "", *, group: str) -> str:
        """An element-wise operator in the epilogue of a group."""
        result = self.tensor(f"{name}:y", self.tensors[value].shape, Role.INTERNAL)
        inputs = (value, second) if second else (value,)
        names = ("a", "b", "y") if second else ("x", "y")
        self.operators.append(
            Operator(name=name, kind=kind, inputs=inputs, outputs=(result,), operands=names, group=group)
        )
        return result

    def reshape(self, name: str, value: str, *shape: int) -> str:
        result = self.tensor(f"{name}:y", shape, Role.INTERNAL)
        self.operators.append(
            Operator(
                name=name,
                kind="reshape",
                inputs=(value,),
                outputs=(result,),
                operands=("x", "y"),
                attributes={"shape": shape},
            )
        )
        return result

    def part(self, name: str, value: str, *bounds: tuple[int, int]) -> str:
        """From a beginning to an end along each axis."""
        starts, ends = zip(*bounds, strict=True)
        shape = self.tensors[value].shape
        return self.operator(
            name, "slice", {"x": value}, inputs={"x": shape}, attributes={"starts": starts, "ends": ends}
        )

    def convolution(self, name: str, x: str, filters: int, *then: str, residual: str = "") -> str:
        """A 3 x 3 convolution that keeps the size, with a bias and what is fused behind it."""
        shape = self.tensors[x].shape
        w = self.constant(f"{name}.w", filters, 3, 3, shape[-1])
        attributes = {"filters": filters, "kernel": [3, 3], "padding": [1, 1, 1, 1]}
        y = self.operator(
            name, "conv2d", {"x": x, "w": w}, group=name, inputs={"x": shape}, attributes=attributes
        )
        y = self.fuse(f"{name}.b", "add", y, self.constant(f"{name}.bias", filters), group=name)
        if residual:
            y = self.fuse(f"{name}.r", "add", y, residual, group=name)
        for kind in then:
            y = self.fuse(f"{name}.{kind}", kind, y, group=name)
        return y

    def network(self, **outputs: str) -> Network:
        """The network whose outputs are these tensors, under new names (`_` for `/`)."""
        names = {tensor: name.replace("_", "/") for name, tensor in outputs.items()}
        tensors = [
            msgspec.structs.replace(tensor, name=names[tensor.name], role=Role.OUTPUT)
            if tensor.name in names
            else tensor
            for tensor in self.tensors.values()
        ]
        tensors.sort(key=lambda t: list(names.values()).index(t.name) if t.role is Role.OUTPUT else -1)

        def renamed(operator: Operator) -> Operator:
            return msgspec.structs.replace(
                operator,
                inputs=tuple(names.get(name, name) for name in operator.inputs),
                outputs=tuple(names.get(name, name) for name in operator.outputs),
            )

        program = Program(
            name=self.name,
            form="network",
            source="built by hand",
            tensors=tuple(tensors),
            operators=tuple(map(renamed, self.operators)),
        )
        return Network(program=program, constants=self.constants)


def branching(name: str = "branching") -> Network:
    """Two inputs and two outputs; a residual, a concatenation, a pooling, a product, a softmax.

    The second and third convolution compute the same with other weights.
    """
    s = Sketch(name)
    image = s.input("image:0", 1, 9, 9, 5, layout="NHWC")
    extra = s.input("extra", 1, 10)
    first = s.convolution("stem", image, 8, "relu")
    second = s.convolution("one", first, 8, "relu", residual=first)
    third = s.convolution("two", second, 8, "relu", residual=first)
    joined = s.operator(
        "join/1",
        "concat",
        {"x0": second, "x1": third},
        inputs=[s.tensors[second].shape, s.tensors[third].shape],
    )
    window = {"kernel": [3, 3], "stride": [2, 2]}
    pooled = s.operator(
        "pool", "max_pool", {"x": joined}, inputs={"x": s.tensors[joined].shape}, attributes=window
    )
    flat = s.reshape("flatten", pooled, 1, 256)
    dense = s.operator(
        "dense", "gemm", {"a": flat, "b": s.constant("dense.w", 256, 10)}, group="dense", m=1, n=10, k=256
    )
    dense = s.fuse("dense.b", "add", dense, s.constant("dense.bias", 10), group="dense")
    likely = s.operator("softmax", "softmax", {"x": dense}, inputs={"x": [1, 10]})
    total = s.operator("sum", "add", {"a": dense, "b": extra}, inputs={"a": [1, 10], "b": [1, 10]})
    return s.network(likely=likely, out_sum=total)
