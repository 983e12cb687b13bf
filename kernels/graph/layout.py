"""Layouts: transpositions and reshapings are put off as views, and most of them vanish.

An operator that needs its operand as it says has the view stored; on the way there, views
meet their inverses. So images are NHWC inside, for convolutions and poolings want them so and what lies
between takes them as they come, and the matrices of an attention stay matrices.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from kernels.graph.draft import Draft
from kernels.graph.views import Shape, View
from kernels.operators import find_family
from kernels.operators.base import ElementWise, Family
from kernels.program import Network, Operator, Role, Tensor

Seen = tuple[Tensor, View]
"""A stored tensor, and how it is seen under some name."""


def lay_out(network: Network) -> Network:
    """The same network with as few transpositions as there can be, found in one walk forward."""
    walk = _Layout(network)
    for operator in network.program.operators:
        walk.take(operator)
    walk.finish()
    return walk.draft.network()


class _Layout:
    """How each tensor of the old network is stored in the new one."""

    def __init__(self, network: Network) -> None:
        self._old = network.program
        self.draft = Draft.of(network)
        self.seen: dict[str, Seen] = {
            tensor.name: (tensor, View.of(tensor.shape))
            for tensor in network.program.tensors
            if tensor.role in (Role.INPUT, Role.CONSTANT)
        }
        self._stored: dict[tuple[object, ...], Tensor] = {}

    def take(self, operator: Operator) -> None:
        """Put a transposition or reshaping off; carry what can be over views; else settle them."""
        (name,) = operator.outputs
        if operator.kind == "transpose":
            tensor, view = self.seen[operator.inputs[0]]
            self.seen[name] = tensor, view.transposed(shape_of(operator, "permute"))
        elif operator.kind == "reshape":
            self.seen[name] = self._reshaped(operator)
        else:
            self.seen[name] = self._carried(operator) or self._settled(operator)

    def finish(self) -> None:
        """Store outputs as the model has them."""
        for tensor in self._old.tensors:
            if tensor.role is Role.OUTPUT and tensor.elements:  # what has no elements, nothing makes
                stored = self._materialised(*self.seen[tensor.name], tensor.name)
                self._reshape(stored, tensor, tensor.name)

    def _reshaped(self, operator: Operator) -> Seen:
        tensor, view = self.seen[operator.inputs[0]]
        shape = shape_of(operator, "shape")
        seen = view.reshaped(shape)
        if seen is not None:
            return tensor, seen
        stored = self._materialised(tensor, view, operator.inputs[0])
        result = self._shaped(stored, shape, operator.outputs[0])
        return result, View.of(shape)

    # -- operators that take views as they come -----------------------------------------

    def _carried(self, operator: Operator) -> Seen | None:
        """The operator on stored tensors, seen through the same view; None if it cannot be so."""
        family = find_family(operator.kind)
        attributes = msgspec.convert(operator.attributes, family.attributes)
        output = self._old.tensor(operator.outputs[0])
        data = [name for name in operator.inputs if not self._is_weight(family, operator, name)]
        best: tuple[int, View, Any, list[View]] | None = None
        candidates: dict[object, View] = {}
        for name in data:
            tensor, view = self.seen[name]
            if tensor.role is not Role.CONSTANT:
                candidates.setdefault(view.key, view)
        for view in candidates.values():
            carried = family.carried(attributes, len(view.shape), view.axes, view.stored_shape)
            laid = None if carried is None else self._laid(family, view, data, output.shape)
            if laid is None:
                continue
            cost = sum(
                self.seen[name][0].bytes
                for name, other in zip(data, laid, strict=True)
                if not other.in_order and self.seen[name][0].role is not Role.CONSTANT
            )
            if best is None or cost < best[0]:
                best = cost, view, carried, laid
        settling = sum(self.seen[name][0].bytes for name in data if not self.seen[name][1].in_order)
        if best is None or best[0] > settling:
            return None
        _, view, carried, laid = best
        result = view.resized(output.shape)
        if result is None:
            return None
        given = {name: self._operand(family, name, other) for name, other in zip(data, laid, strict=True)}
        inputs = tuple(given[name].name if name in given else name for name in operator.inputs)
        like = next(t for t in (given[name] for name in data) if t.role is not Role.CONSTANT)
        layout = like.layout if len(like.shape) == len(result.stored_shape) else "rows"
        stored = self.draft.add(
            msgspec.structs.replace(
                output,
                name=self.draft.fresh(output.name),
                role=Role.INTERNAL,
                shape=result.stored_shape,
                layout=layout,
            )
        )
        self.draft.append(
            msgspec.structs.replace(
                operator,
                inputs=inputs,
                outputs=(stored.name,),
                attributes=msgspec.to_builtins(carried),
            )
        )
        return stored, result

    @staticmethod
    def _is_weight(family: Family, operator: Operator, name: str) -> bool:
        """Weights of normalisations are vectors along the last axis, which stays the last."""
        operand = operator.operands[operator.inputs.index(name)]
        return operand in family.weights

    def _laid(self, family: Family, view: View, data: list[str], output: Shape) -> list[View] | None:
        """Each operand as it is to be seen to be stored like `view`."""
        found = []
        for name in data:
            _, own = self.seen[name]
            target: View | None = view
            if isinstance(family, ElementWise):
                if view.shape != output:
                    return None
            else:
                target = view.resized(own.shape)
            if target is not None and target.key == own.key:
                laid: View | None = View.of(own.stored_shape)
            else:
                laid = None if target is None else target.laid(own)
            if laid is None:
                return None
            found.append(laid)
        return found

    def _operand(self, family: Family, name: str, laid: View) -> Tensor:
        tensor, _ = self.seen[name]
        shape = laid.shape
        if isinstance(family, ElementWise) and tensor.role is Role.CONSTANT:
            while len(shape) > 1 and shape[0] == 1:
                shape = shape[1:]
        return self._shaped(self._materialised(tensor, laid, name), shape, name)

    # -- operators that say how their operands lie ---------------------------------------

    def _settled(self, operator: Operator) -> Seen:
        """The operator on operands stored as it says, or transposed as it can take them."""
        family = find_family(operator.kind)
        attributes = msgspec.convert(operator.attributes, family.attributes)
        inputs = []
        given = self._unshuffled(operator)
        for operand, name in zip(operator.operands, operator.inputs, strict=False):
            tensor, view = given.get(name) or self.seen[name]
            permute = None if view.in_order or tensor.role is Role.CONSTANT else view.arrangement()
            if permute is not None:
                taken = family.absorbed(attributes, operand, permute, tensor)
                if taken is not None:
                    attributes = taken
                    shape = tuple(view.shape[permute.index(axis)] for axis in range(len(permute)))
                    inputs.append(self._shaped(tensor, shape, name).name)
                    continue
            inputs.append(self._materialised(tensor, view, name).name)
        output = self._old.tensor(operator.outputs[0])
        stored = self.draft.add(
            msgspec.structs.replace(output, name=self.draft.fresh(output.name), role=Role.INTERNAL)
        )
        self.draft.append(
            msgspec.structs.replace(
                operator,
                inputs=tuple(inputs),
                outputs=(stored.name,),
                attributes=msgspec.to_builtins(attributes),
            )
        )
        return stored, View.of(stored.shape)

    def _unshuffled(self, operator: Operator) -> dict[str, Seen]:
        """For a product whose rows of A are in another order: those of a constant B, put in A's.

        So an image becomes the rows of a product as it is stored.
        """
        if operator.kind != "gemm" or operator.attributes["transpose"] != "nn":
            return {}
        a_name, b_name = operator.inputs
        (a, view), (b, weights) = self.seen[a_name], self.seen[b_name]
        if b.role is not Role.CONSTANT or view.in_order or len(b.shape) != 2:  # noqa: PLR2004 - a matrix
            return {}
        (m_atoms, k_atoms) = view.seen
        m_long, k_long = ([atom for atom in axis if view.extents[atom] > 1] for axis in (m_atoms, k_atoms))
        if m_long != sorted(m_long) or (m_long and k_long and max(m_long) > min(k_long)):
            return {}
        split = weights.reshaped((*(view.extents[atom] for atom in k_long), b.shape[1]))
        if split is None:
            return {}
        order = sorted(range(len(k_long)), key=k_long.__getitem__)
        rows = split.transposed((*order, len(k_long))).reshaped(b.shape)
        if rows is None:
            return {}
        straight = View(view.extents, view.stored, (m_atoms, tuple(sorted(k_atoms))))
        return {a_name: (a, straight), b_name: (b, rows)}

    # -- moving elements -----------------------------------------------------------------

    def _materialised(self, tensor: Tensor, view: View, name: str) -> Tensor:
        """A tensor that is stored as the view sees it; made once for all that need it."""
        if view.in_order:
            return self._shaped(tensor, view.shape, name)
        key = tensor.name, *view.key
        if key not in self._stored:
            stored, permute = _moves(tensor.shape, view)
            if tensor.role is Role.CONSTANT:
                value = self.draft.constants[tensor.name].reshape(stored).transpose(permute)
                self._stored[key] = self.draft.constant(
                    f"{tensor.name}.transposed", np.ascontiguousarray(value).reshape(view.shape)
                )
            else:
                source = self._shaped(tensor, stored, name)
                moved = self.draft.call(
                    f"{name}.transpose",
                    f"{name}.transposed",
                    "transpose",
                    {"x": source},
                    {"permute": permute},
                )
                self._stored[key] = self._shaped(moved, view.shape, name)
        return self._stored[key]

    def _shaped(self, tensor: Tensor, shape: Shape, name: str) -> Tensor:
        """The same elements in another shape; made once."""
        if tensor.shape == shape:
            return tensor
        key = tensor.name, shape
        if key not in self._stored:
            if tensor.role is Role.CONSTANT:
                value = self.draft.constants[tensor.name].reshape(shape)
                self._stored[key] = self.draft.constant(f"{tensor.name}.shaped", value)
            else:
                result = Tensor(
                    name=self.draft.fresh(f"{name}.shaped"),
                    shape=shape,
                    role=Role.INTERNAL,
                    dtype=tensor.dtype,
                )
                self._reshape(tensor, result, result.name)
                self._stored[key] = result
        return self._stored[key]

    def _reshape(self, tensor: Tensor, result: Tensor, name: str) -> None:
        self.draft.add(result)
        self.draft.append(
            Operator(
                name=name,
                kind="reshape",
                inputs=(tensor.name,),
                outputs=(result.name,),
                operands=("x", "y"),
                attributes={"shape": result.shape},
            )
        )


def _moves(shape: Shape, view: View) -> tuple[Shape, Shape]:
    """A shape for the stored elements, and the permutation of its axes that the view is.

    The tensor's own shape, if its axes are permuted as a whole; else the fewest axes.
    """
    permute = view.arrangement()
    if (
        permute is not None
        and tuple(view.shape[permute.index(axis)] for axis in range(len(permute))) == shape
    ):
        return shape, permute
    stored, _, permute = view.runs
    return stored, permute


def shape_of(operator: Operator, key: str) -> Shape:
    """An attribute that is a tuple of numbers."""
    value = operator.attributes[key]
    if isinstance(value, list | tuple):
        return tuple(value)
    raise TypeError(f"{operator.kind}.{key} = {value} is no list of numbers")
