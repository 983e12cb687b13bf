"""Every element type: its bytes, how strictly it is judged, and halves where only float32 has a kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from kernels import check, graph
from kernels.elements import element_of, from_bytes, numpy_type, to_bytes
from kernels.errors import InputError
from kernels.program import ElementType
from tests import networks
from tests.builders import Graph
from tests.unit.test_judging import TARGET, kernel_of
from tests.unit.test_onnx import read

HALVES = (ElementType.FLOAT16, ElementType.BFLOAT16)
WHOLE = (ElementType.INT8, ElementType.UINT8, ElementType.INT32, ElementType.INT64)


@pytest.mark.parametrize("dtype", ElementType)
def test_bytes_have_an_order_and_come_back(dtype: ElementType) -> None:
    array = np.array([1, 0, 1], numpy_type(dtype))
    little, big = to_bytes(array, "<"), to_bytes(array, ">")
    assert len(little) == array.size * dtype.bytes
    assert little == b"".join(big[at : at + dtype.bytes][::-1] for at in range(0, len(big), dtype.bytes))
    for raw, order in ((little, "<"), (big, ">")):
        found = from_bytes(raw, dtype, order)  # type: ignore[arg-type]
        assert found.dtype == array.dtype
        assert element_of(found.dtype) is dtype
        assert np.array_equal(found, array)


def listing(op: str, dtype: ElementType) -> str:
    inputs = "{ a = [9], b = [9] }" if op == "add" else "{ x = [9] }"
    more = "" if op == "add" else "attributes = { permute = [0] }\n"
    return f'[[kernel]]\nname = "k"\nop = "{op}"\ninputs = {inputs}\n{more}type = "{dtype}"\n'


@pytest.mark.parametrize("dtype", [*WHOLE, *HALVES])
@pytest.mark.parametrize("op", ["add", "transpose"])
def test_one_unit_in_the_last_place_is_seen(tmp_path: Path, op: str, dtype: ElementType) -> None:
    kernel = kernel_of(tmp_path, listing(op, dtype))
    arrays = check.make_inputs(kernel, TARGET)
    with np.errstate(all="ignore"):
        right = check.reference(kernel, arrays).value.astype(numpy_type(dtype))
    assert check.judge(kernel, arrays, to_bytes(right, "<"), TARGET).passed
    bits = right.view(f"u{dtype.bytes}").copy()
    at = int(np.flatnonzero(np.isfinite(right.astype(np.float64)))[-1])
    bits[at] ^= 1
    verdict = check.judge(kernel, arrays, to_bytes(bits, "<"), TARGET)
    assert not verdict.passed
    assert f"[{at}]" in verdict.reason


def test_a_type_that_an_operator_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.toml:\d+: add takes float32, .*, not bool"):
        kernel_of(tmp_path, listing("add", ElementType.BOOL))


def test_products_of_halves_are_computed_in_float32(tmp_path: Path) -> None:
    g = Graph("halves")
    w = g.weight(5, 7)
    g.constants[w] = g.constants[w].astype(np.float16)
    y = g.node("Softmax", g.node("MatMul", "x", w))
    types = {"x": onnx.TensorProto.FLOAT16, y: onnx.TensorProto.FLOAT16}
    path = tmp_path / "m.onnx"
    onnx.save(networks.model(g.nodes, {"x": (3, 5)}, [y], g.constants, types=types), path)
    network = read(path)
    kinds = [operator.kind for operator in network.program.operators]
    assert kinds.count("cast") == 4, kinds
    inputs = networks.inputs_of(network)
    (wanted,) = networks.expected(path, inputs).values()
    for each in (network, graph.optimise(network)):
        (found,) = networks.run(each, inputs).values()
        assert np.allclose(found.astype(float), wanted.astype(float), atol=2.0**-10)
