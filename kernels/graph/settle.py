"""Constants as the library will hold them: rounded to their type, once, and contiguous."""

from __future__ import annotations

import numpy as np

from kernels.elements import numpy_type
from kernels.program import Network


def settle(network: Network) -> Network:
    """The same network with every constant of its tensor's type."""
    types = {tensor.name: numpy_type(tensor.dtype) for tensor in network.program.tensors}
    with np.errstate(over="ignore"):
        constants = {
            name: np.asarray(value, dtype=types[name], order="C")
            for name, value in network.constants.items()
        }
    return Network(program=network.program, constants=constants)
