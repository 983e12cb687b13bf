"""Networks for tests: made, filled with random weights, and run by the families' references."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kernels.operators import find_family
from kernels.program import ElementType, Network, Role

Array = NDArray[Any]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def generator(name: str) -> np.random.Generator:
    """Random numbers that depend on a name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def filled(name: str, folder: Path) -> Path:
    """A light network of the onnx package with random weights of a sensible scale.

    Branches of residual networks are damped, and so is what softmax gets: a sum that grows
    from block to block would leave one class alone, and hide every other difference.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    uses: dict[str, tuple[str, int]] = {}
    for node in reversed(model.graph.node):
        for number, given in enumerate(node.input):
            # A scale that is shaped first is a scale none the less: small ones would hide all before.
            shaped = uses.get(node.output[0]) if node.op_type == "Unsqueeze" else None
            uses[given] = shaped or (node.op_type, number)
    residual = any(node.op_type == "Sum" for node in model.graph.node)
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        (made,) = node.output
        shape = tuple(int(extent) for extent in shapes[node.input[0]])
        value = weights(made, shape, uses.get(made))
        if residual and uses.get(made) == ("BatchNormalization", 1):
            value *= np.float32(0.5)
        model.graph.initializer.append(numpy_helper.from_array(value, made))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def weights(name: str, shape: tuple[int, ...], use: tuple[str, int] | None = None) -> Array:
    """Weights that keep activations near 1: He et al., 2015, for products."""
    random = generator(name)
    if use in {("BatchNormalization", 4), ("BatchNormalization", 1)}:
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if use and use[0] == "Mul":
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) < 2:
        return random.uniform(-0.2, 0.2, shape).astype(np.float32)
    terms = int(np.prod(shape[1:]))
    scale = np.sqrt((0.2 if use == ("Gemm", 1) else 2.0) / terms)
    return (random.standard_normal(shape) * scale).astype(np.float32)


def inputs_of(network: Network) -> dict[str, Array]:
    """Random contents for a network's inputs; small whole numbers for indices."""
    found = {}
    for tensor in network.program.tensors:
        if tensor.role is Role.INPUT:
            random = generator(tensor.name)
            if tensor.dtype is ElementType.FLOAT32:
                found[tensor.name] = random.uniform(-1, 1, tensor.shape).astype(np.float32)
            else:
                found[tensor.name] = random.integers(0, 7, tensor.shape).astype(tensor.dtype.value)
    return found


def run(network: Network, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs that have elements, operator by operator, in float64."""
    program = network.program
    values: dict[str, Array] = {**inputs, **network.constants}
    left = {tensor.name: 0 for tensor in program.tensors}
    for operator in program.operators:
        for given in operator.inputs:
            left[given] += 1
    for operator in program.operators:
        family = find_family(operator.kind)
        attributes = msgspec.convert(operator.attributes, family.attributes)
        *names, _ = operator.operands
        arrays = {name: values[given] for name, given in zip(names, operator.inputs, strict=True)}
        for name, given in zip(names, operator.inputs, strict=True):
            assert arrays[name].shape == program.tensor(given).shape, (operator, name)
        (made,) = operator.outputs
        values[made] = family.reference(attributes, arrays).value
        assert values[made].shape == program.tensor(made).shape, operator
        for given in operator.inputs:
            left[given] -= 1
            if not left[given] and program.tensor(given).role is Role.INTERNAL:
                values[given] = np.zeros(0)
    return {t.name: values[t.name] for t in program.tensors if t.role is Role.OUTPUT and t.elements}


def session(model: Path | str | bytes) -> onnxruntime.InferenceSession:
    """A session of one thread: how onnxruntime quantises a batch's states depends on their number."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def expected(model: Path | str | bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by onnxruntime."""
    asked = session(model)
    wanted = {value.name for value in asked.get_inputs()}
    names = [value.name for value in asked.get_outputs()]
    given = {name: value for name, value in inputs.items() if name in wanted}
    return dict(zip(names, asked.run(names, given), strict=True))


def assert_same(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Equal but for float32's rounding over a whole network."""
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        scale = float(np.abs(value[np.isfinite(value)]).max(initial=0.0)) or 1.0
        np.testing.assert_allclose(
            found[name].reshape(value.shape), value, rtol=1e-3, atol=2e-5 * scale, err_msg=name
        )


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int | str, ...]],
    outputs: list[str],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of some nodes; outputs of any shape."""

    def value(name: str, shape: tuple[int | str, ...] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, (types or {}).get(name, onnx.TensorProto.FLOAT), shape)

    graph = helper.make_graph(
        nodes,
        "test",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)
