"""A recurrent network on integers, whose states are quantised anew in each step."""

from __future__ import annotations

import numpy as np

from kernels.errors import InputError
from kernels.models.contrib.body import Body, Function

GATES = 4
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
MOST_STEPS = 1 << 12
FUNCTIONS_OF_GATES = ("sigmoid", "tanh", "tanh")


def _dynamic_quantize_lstm(f: Body) -> tuple[str, ...]:
    """ONNX's LSTM, with products of bytes: the input quantised as a whole, the state in each step."""
    x, w, r, bias, lengths, h, c, peepholes, *parameters = f.inputs(12)
    functions = [name.lower() for name in f.attribute("activations", ())]
    plain = functions in ([], list(FUNCTIONS_OF_GATES) * (len(functions) // len(FUNCTIONS_OF_GATES)))
    if lengths or peepholes or not plain or f.attribute("clip", 0.0) or f.attribute("input_forget", 0):
        raise InputError("sequences of several lengths, peepholes, and other functions are not supported")
    steps, batch, size = f.shape(0)
    if steps > MOST_STEPS:
        raise InputError(f"{steps} steps; {MOST_STEPS} are supported")
    hidden = f.shape(2)[1]
    whole = f.several(3, "DynamicQuantizeLinear", f("Reshape", x, f.whole(steps * batch, size)))
    ways = DIRECTIONS[f.attribute("direction", "forward")]
    made = []
    for number, backwards in enumerate(ways):
        own = [f.row(each, number) if each else each for each in (w, r, bias, h, c, *parameters)]
        weights, recurrent, sums, state, cell, w_scale, w_zero, r_scale, r_zero = own
        biases = f.several(2, "Split", sums, axis=0, num_outputs=2) if sums else []
        rows = f.sum(_product(f, whole, (weights, w_scale, w_zero)), *biases)
        parts = f.several(steps, "Split", rows, axis=0, num_outputs=steps) if steps > 1 else [rows]
        cell = cell or f.constant(np.zeros((batch, hidden), np.float32))
        seen = []
        for part in reversed(parts) if backwards else parts:
            gates = part
            if state:
                quantized = f.several(3, "DynamicQuantizeLinear", state)
                gates = f.sum(part, _product(f, quantized, (recurrent, r_scale, r_zero)))
            i, o, forget, new = f.several(GATES, "Split", gates, axis=-1, num_outputs=GATES)
            kept = f("Mul", f("Sigmoid", forget), cell)
            cell = f.sum(kept, f("Mul", f("Sigmoid", i), f("Tanh", new)))
            state = f("Mul", f("Sigmoid", o), f("Tanh", cell))
            seen.append(state)
        made.append((f.stacked(0, *(reversed(seen) if backwards else seen)), state, cell))
    every, last, cells = zip(*made, strict=True)
    return f.stacked(1, *every), f.stacked(0, *last), f.stacked(0, *cells)


def _product(f: Body, x: list[str], weights: tuple[str, str, str]) -> str:
    """Quantised rows by a matrix, which has one scale and zero point, or one for each column."""
    (whole, step, least), (w, scale, zero) = x, weights
    return f.scaled(f("MatMulInteger", whole, w, least, zero), step, scale)


FUNCTIONS: dict[str, Function] = {"DynamicQuantizeLSTM": _dynamic_quantize_lstm}
"""By the operator's type."""
