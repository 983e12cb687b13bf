"""A network in the making: what the reader and every pass write into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any

import msgspec
import numpy as np

from kernels.errors import InputError
from kernels.operators import find_family
from kernels.operators.base import Array, Definition
from kernels.program import ElementType, Network, Operator, Program, Role, Tensor

LARGEST_TENSOR = (1 << 31) - 1
"""Bytes: what a 32-bit target can address with a sign to spare."""


class Draft:
    """Tensors by name, operators in order, values of constants."""

    def __init__(self, name: str, source: str, dims: Mapping[str, int] | None = None) -> None:
        """An empty network; `dims` are the program's."""
        self.name, self.source, self.dims = name, source, dict(dims or {})
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Array] = {}
        self.operators: list[Operator] = []
        self.reserved: set[str] = set()
        """Names that are kept for outputs."""
        self._numbers: dict[str, int] = {}
        self._operator_names: set[str] = set()

    @classmethod
    def of(cls, network: Network) -> Draft:
        """What a network begins and ends with: inputs, constants and outputs, and no operators yet."""
        draft = cls(network.program.name, network.program.source, network.program.dims)
        draft.tensors = {t.name: t for t in network.program.tensors if t.role is not Role.INTERNAL}
        draft.constants = dict(network.constants)
        return draft

    def fresh(self, base: str) -> str:
        """A name that no tensor has: `base` itself, or with the next number behind it."""
        name = base
        while name in self.tensors or name in self.reserved:
            self._numbers[base] = self._numbers.get(base, 0) + 1
            name = f"{base}.{self._numbers[base]}"
        return name

    def add(self, tensor: Tensor) -> Tensor:
        """Take a tensor in under its own name."""
        self.tensors[tensor.name] = tensor
        return tensor

    def constant(self, base: str, value: Array, layout: str = "rows") -> Tensor:
        """A constant; float64 stands for float32 that is not rounded yet."""
        dtype = constant_type(value)
        name = self.fresh(base)
        self.constants[name] = value
        return self.add(
            Tensor(name=name, shape=value.shape, role=Role.CONSTANT, dtype=dtype, layout=layout)
        )

    def rename(self, tensors: Sequence[tuple[Tensor, str]], first: int = 0) -> list[Tensor]:
        """Tensors that operators from number `first` on make and read, under free names like these."""
        swap: dict[str, str] = {}
        for tensor, wanted in tensors:
            if tensor.name not in swap:
                swap[tensor.name] = name = self.fresh(wanted)
                del self.tensors[tensor.name]
                self.add(msgspec.structs.replace(tensor, name=name))
        for number in range(first, len(self.operators)) if swap else ():
            operator = self.operators[number]
            self.operators[number] = msgspec.structs.replace(
                operator,
                inputs=tuple(swap.get(given, given) for given in operator.inputs),
                outputs=tuple(swap.get(made, made) for made in operator.outputs),
            )
        return [self.tensors[swap[tensor.name]] for tensor, _ in tensors]

    def forget(self, first: int) -> None:
        """Take operators from number `first` on out again; what they made is then needed by nobody."""
        self._operator_names.difference_update(operator.name for operator in self.operators[first:])
        del self.operators[first:]

    def append(self, operator: Operator) -> None:
        """Take an operator in; its name is made unique."""
        name = operator.name
        while name in self._operator_names:
            self._numbers[operator.name] = self._numbers.get(operator.name, 0) + 1
            name = f"{operator.name}.{self._numbers[operator.name]}"
        self._operator_names.add(name)
        self.operators.append(
            operator if name == operator.name else msgspec.structs.replace(operator, name=name)
        )

    def call(
        self,
        name: str,
        result: str,
        kind: str,
        operands: Mapping[str, Tensor],
        attributes: Mapping[str, Any] | None = None,
        **entry: Any,
    ) -> Tensor:
        """Append an operator as its family defines it for these operands; its result.

        InputError where attributes and operands do not fit.
        """
        definition = define(kind, operands, attributes, **entry)
        for key, number in definition.attributes.items():
            if isinstance(number, float) and not isfinite(number):
                raise InputError(f"{kind}'s {key} is {number}, where a finite number is due")
        for expected in definition.operands:
            found = operands[expected.name]
            if found.shape != expected.shape or found.dtype is not expected.dtype:
                raise InputError(
                    f"{expected.name} ('{found.name}') is {list(found.shape)} of {found.dtype}, "
                    f"where {kind} needs {list(expected.shape)} of {expected.dtype}"
                )
        if definition.output.bytes > LARGEST_TENSOR:
            raise InputError(
                f"a result of {definition.output.bytes} bytes is beyond a 32-bit address space"
            )
        output = self.add(
            msgspec.structs.replace(
                definition.output,
                name=self.fresh(result),
                role=Role.INTERNAL,
            )
        )
        self.append(
            Operator(
                name=name,
                kind=kind,
                inputs=tuple(operands[each.name].name for each in definition.operands),
                outputs=(output.name,),
                operands=(*(each.name for each in definition.operands), definition.output.name),
                attributes=definition.attributes,
            )
        )
        return output

    def network(self) -> Network:
        """The network: without operators and constants that no output needs."""
        needed = {tensor.name for tensor in self.tensors.values() if tensor.role is Role.OUTPUT}
        kept: list[Operator] = []
        for operator in reversed(self.operators):
            if needed.isdisjoint(operator.outputs):
                continue
            kept.append(operator)
            needed.update(operator.inputs)
            needed.update(operator.outputs)
        tensors = [t for t in self.tensors.values() if t.name in needed or t.role is Role.INPUT]
        tensors.sort(key=lambda tensor: ORDER.index(tensor.role))
        program = Program(
            name=self.name,
            form="network",
            source=self.source,
            tensors=tuple(tensors),
            operators=tuple(reversed(kept)),
            dims=self.dims,
        )
        return Network(
            program=program,
            constants={t.name: self.constants[t.name] for t in tensors if t.role is Role.CONSTANT},
        )


ORDER = (Role.INPUT, Role.OUTPUT, Role.CONSTANT, Role.STATE, Role.INTERNAL)


def define(
    kind: str, operands: Mapping[str, Tensor], attributes: Mapping[str, Any] | None = None, **entry: Any
) -> Definition:
    """What the entry of a listing with these operands' shapes would mean."""
    family = find_family(kind)
    keys: dict[str, Any] = {"name": "n", "op": kind, **entry}
    if attributes is not None:
        keys["attributes"] = attributes
    entry_type: type[msgspec.Struct] = family.entry
    names = _inputs_of(entry_type)
    if names:
        keys["inputs"] = {name: operands[name].shape for name in names}
    elif names is not None:
        keys["inputs"] = [tensor.shape for tensor in operands.values()]
    try:
        definition = family.define(msgspec.convert(keys, family.entry))
    except msgspec.ValidationError as error:
        raise InputError(f"{kind}: {error}") from error
    free = [operands[each.name].dtype for each in left_open(definition)]
    return family.typed(definition, free[0]) if free else definition


def left_open(definition: Definition) -> list[Tensor]:
    """The operands whose type is the caller's to choose."""
    return [each for each in definition.operands if each.dtype is ElementType.FLOAT32]


def constant_type(value: Array) -> ElementType:
    """The element type of a constant; float64 stands for float32 that is not rounded yet."""
    return ElementType.FLOAT32 if value.dtype == np.float64 else ElementType(value.dtype.name)


@cache
def _inputs_of(entry: type[msgspec.Struct]) -> tuple[str, ...] | None:
    """The names of an entry's `inputs`; none if it is a list of any number; None if there are no inputs."""
    types = [field.type for field in msgspec.structs.fields(entry) if field.name == "inputs"]
    if not types:
        return None
    (inputs,) = types
    if isinstance(inputs, type) and issubclass(inputs, msgspec.Struct):
        return tuple(field.name for field in msgspec.structs.fields(inputs))
    return ()
