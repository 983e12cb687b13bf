"""Element-wise operators join the kernel that makes what they read, as its epilogue."""

from __future__ import annotations

import msgspec
import numpy as np

from kernels.graph.chains import Readers
from kernels.graph.draft import Draft
from kernels.names import identifiers
from kernels.operators import find_family
from kernels.operators.base import ElementWise
from kernels.program import Network, Operator, Role, Tensor

MOST_STEPS = 32
"""Of one epilogue: a kernel's code, and the time to compile it, grow with them."""


def fuse(network: Network) -> Network:
    """The same network with each operator in a group, a kernel's; the groups in order of computation."""
    return _Fusion(network).run()


class _Fusion:
    def __init__(self, network: Network) -> None:
        self._program = network.program
        self._network = network
        self._readers = Readers(network)
        self._places = {operator.name: at for at, operator in enumerate(network.program.operators)}
        self._draft = Draft.of(network)
        self._led_at: dict[str, int] = {}
        """Where the kernel begins that computes an operator."""

    def run(self) -> Network:
        """Group by group, led by the first operator that is in none yet."""
        for tensor in self._program.tensors:
            if tensor.role is Role.INTERNAL:
                self._draft.add(tensor)
        operators = self._program.operators
        groups = [self._group(each) for each in operators if each.name not in self._led_at]
        names = identifiers(group[0].name for group in groups)
        for group in groups:
            for operator in group:
                self._draft.append(msgspec.structs.replace(operator, group=names[group[0].name]))
        return self._draft.network()

    def _group(self, leading: Operator) -> list[Operator]:
        place = self._places[leading.name]
        group = [leading]
        self._led_at[leading.name] = place
        if not find_family(leading.kind).fuses:
            return group
        taken: set[str] = set()
        while len(group) <= MOST_STEPS:
            following = self._readers.alone(group[-1].outputs[0])
            if following is None:
                break
            step = self._step(following, group[-1].outputs[0], place, taken)
            if step is None:
                break
            self._led_at[following.name] = place
            group.append(step)
        return group

    def _step(self, operator: Operator, name: str, place: int, taken: set[str]) -> Operator | None:
        """The operator as a step on the tensor `name`; None if it must be a kernel of its own."""
        family = find_family(operator.kind)
        result = self._program.tensor(operator.outputs[0])
        if not isinstance(family, ElementWise) or not result.dtype.floating:
            return None
        if len(operator.inputs) == 1:
            return operator if family.words else None
        others = [given for given in operator.inputs if given != name]
        value = self._program.tensor(name)
        if len(others) != 1 or value.shape != result.shape:
            return None
        second, commutes = self._program.tensor(others[0]), operator.kind == "add"
        word = second_name = ""
        if second.role is Role.CONSTANT and (commutes or operator.inputs[0] == name):
            word = family.by_channel
            second_name = self._for_each_channel(second, result) if word else ""
        elif commutes:
            word, second_name = "residual", self._residual(second, result, place)
        if not second_name or word in taken:
            return None
        taken.add(word)
        return msgspec.structs.replace(operator, inputs=(name, second_name))

    def _for_each_channel(self, tensor: Tensor, result: Tensor) -> str:
        """A constant for each channel, or one for all, as a vector of channels."""
        channels = result.shape[-1:]
        if tensor.shape == channels:
            return tensor.name
        if tensor.elements != 1:
            return ""
        value = self._network.constants[tensor.name].reshape(1)
        return self._draft.constant(f"{tensor.name}.channels", np.repeat(value, channels[0])).name

    def _residual(self, tensor: Tensor, result: Tensor, place: int) -> str:
        """An activation of the result's shape that is there before the kernel begins."""
        maker = self._readers.maker(tensor.name)
        ready = maker is None or self._led_at.get(maker.name, place) < place
        return tensor.name if ready and tensor.shape == result.shape else ""
