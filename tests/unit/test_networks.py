"""Networks as exporters write them, MobileNets and BERT: right, and with nothing needless."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from kernels import graph
from kernels.errors import InputError
from kernels.models.oracle import OnnxRuntime
from kernels.models.runtime import open_session
from kernels.program import Network, Role
from tests import builders, networks
from tests.unit.test_graph import assert_sound, groups, kinds
from tests.unit.test_onnx import read

MADE: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, int]]] = {
    "mobilenet_v2": (lambda: builders.mobilenet_v2(40, 0.25, 10), {}),
    "mobilenet_v3": (lambda: builders.mobilenet_v3(40, 10), {}),
    "mobilenet_v3_old": (lambda: builders.mobilenet_v3(40, 10, decomposed=True), {}),
    "bert": (builders.bert, {"batch": 2, "sequence": 7}),
    "bert_old": (lambda: builders.bert(decomposed=True), {"batch": 1, "sequence": 9}),
}


def kernels(network: Network) -> Counter[str]:
    """How many kernels of each composition there are; reshapings are none."""
    return Counter("+".join(members) for members in groups(network).values() if members != ["reshape"])


@pytest.mark.parametrize("name", MADE)
def test_a_network_is_right_after_every_pass(name: str, tmp_path: Path) -> None:
    make, dims = MADE[name]
    path = tmp_path / f"{name}.onnx"
    onnx.save(make(), path)
    network = read(path, **dims)
    inputs = networks.inputs_of(network)
    for each in ("attention_mask", "token_type_ids"):
        if each in inputs:
            inputs[each] %= 2
    wanted = networks.expected(path, inputs)
    networks.assert_same(networks.run(network, inputs), wanted)
    for improve in graph.PASSES:
        network = improve(network)
        networks.assert_same(networks.run(network, inputs), wanted)
    assert_sound(network)


def test_mobilenets_are_their_layers(tmp_path: Path) -> None:
    path = tmp_path / "v2.onnx"
    onnx.save(builders.mobilenet_v2(40, 0.25, 10), path)
    assert kernels(graph.optimise(read(path))) == {
        "conv2d+add+clip": 18,
        "depthwise_conv2d+add+clip": 17,
        "conv2d+add": 6,
        "conv2d+add+add": 11,  # one more than of the whole width: the first two stages are as narrow
        "global_average_pool": 1,
        "gemm+add": 1,
    }


@pytest.mark.parametrize("decomposed", [False, True])
def test_functions_are_found_in_what_exporters_make_of_them(tmp_path: Path, *, decomposed: bool) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(builders.mobilenet_v3(40, 10, decomposed=decomposed), path)
    found = kernels(graph.optimise(read(path)))
    assert found["conv2d+add+hard_swish"] == 7
    assert found["gemm+add+hard_swish"] == 1
    onnx.save(builders.bert(decomposed=decomposed), path)
    network = graph.optimise(read(path, batch=1, sequence=9))
    found = kernels(network)
    assert found["gemm+add+gelu"] == 2
    assert found["layer_norm"] == 5
    assert found["gemm+add+add"] == 4
    assert kinds(network)["div"] == 0  # an attention's scale is in the queries' weights
    assert kinds(network)["transpose"] == 8  # of each attention: three operands and the result


def test_dynamic_dimensions_are_named_with_the_flag(tmp_path: Path) -> None:
    path = tmp_path / "b.onnx"
    onnx.save(builders.bert(layers=1), path)
    with pytest.raises(InputError, match=r"say --dim batch=\.\.\. --dim sequence=\.\.\."):
        read(path)
    with pytest.raises(InputError, match="no dynamic dimension 'sequense'; did you mean 'sequence'"):
        read(path, batch=1, sequence=2, sequense=3)


def without_names(sizes: list[int | str | None]) -> onnx.ModelProto:
    """A model whose input has these dimensions, and whose output is what one size of them would make."""
    model = networks.model([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 3, 8, 8)}, ["y"])
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, sizes, strict=True):
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        elif size is not None:
            dim.dim_value = size
    return model


@pytest.mark.parametrize(
    "sizes", [[-1, 3, -1, -1], [-1, 3, "?", "?"], [None, 3, None, None], ["N", 3, "?", "?"]]
)
def test_dimensions_without_a_name_are_called_by_their_input(
    sizes: list[int | str | None], tmp_path: Path
) -> None:
    """Of PaddlePaddle's exporter some are -1, and some all have the name ?."""
    path = tmp_path / "m.onnx"
    onnx.save(without_names(sizes), path)
    first = "N" if sizes[0] == "N" else "x.0"
    with pytest.raises(InputError, match=rf"say --dim {first}=\.\.\. --dim x.2=\.\.\. --dim x.3=\.\.\."):
        read(path)
    network = read(path, **{first: 2, "x.2": 5, "x.3": 7})
    assert [tensor.shape for tensor in network.program.tensors] == [(2, 3, 5, 7)] * 3
    with pytest.raises(InputError, match=r"the size 0 of dimension 'x.2'; the least is 1"):
        read(path, **{first: 2, "x.2": 0, "x.3": 7})


@pytest.mark.parametrize(("size", "fits"), [(-(1 << 31), True), (1 << 31, False)])
def test_a_value_for_good_is_one_of_its_type(size: int, tmp_path: Path, *, fits: bool) -> None:
    nodes = [
        helper.make_node("Cast", ["n"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    types = {"n": onnx.TensorProto.INT32}
    onnx.save(networks.model(nodes, {"x": (2, 3), "n": (1,)}, ["y"], types=types), path)
    if fits:
        assert read(path, n=size).program.tensors
        return
    with pytest.raises(InputError, match=f"m.onnx: the value {size} of input 'n' is not in its type"):
        read(path, n=size)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_an_input_of_one_integer_can_be_given_its_value_for_good(rate: int, tmp_path: Path) -> None:
    """As in speech detectors, whose branches are of one rate each."""
    branches = {}
    for key, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        made = helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, (2, 3))
        branches[key] = helper.make_graph([helper.make_node(op, ["x"], ["t"])], key, [], [made])
    nodes = [
        helper.make_node("Equal", ["rate", "high"], ["is_high"]),
        helper.make_node("If", ["is_high"], ["y"], name="choice", **branches),
    ]
    types = {"rate": onnx.TensorProto.INT64}
    constants = {"high": np.array(16000)}
    path = tmp_path / "m.onnx"
    onnx.save(networks.model(nodes, {"x": (2, 3), "rate": ()}, ["y"], constants, types=types), path)
    assert [tensor.name for tensor in read(path).program.tensors if tensor.role is Role.INPUT] == [
        "x",
        "rate",
    ]
    with pytest.raises(InputError, match="no dynamic dimension 'x'"):
        read(path, x=1)
    network = read(path, rate=rate)
    assert [tensor.name for tensor in network.program.tensors if tensor.role is Role.INPUT] == ["x"]
    reference = OnnxRuntime(path, {"rate": rate}).ask(network)
    assert reference.source.startswith("onnxruntime")
    networks.assert_same(networks.run(network, reference.inputs), reference.outputs)
    ours, theirs = open_session(path, {"rate": rate}), open_session(path)
    assert [len(each.get_inputs()) for each in (ours, theirs)] == [1, 2]


BELL = ["Mul 0.7978845608", "Tanh", "Add 1", "Mul x", "Mul 0.5"]
WHOLE = [
    ("gelu_tanh", ["Mul x", "Mul x", "Mul 0.044715", "Add x", *BELL]),
    ("gelu_tanh", ["Mul x", "Mul 0.044715", "Add 1", "Mul x", *BELL]),
    ("gelu_tanh", ["Pow 3", "Mul 0.044715", "Add x", *BELL]),
    (
        "gelu_tanh",
        ["Mul x", "Mul 0.044715", "Mul x", "Add x", "Div 1.2533141373", "Tanh", "Add 1", "Mul x", "Div 2"],
    ),
    ("mish", ["Softplus", "Tanh", "Mul x"]),
]
ALMOST = [
    # Each is a pattern but for one number, or for somebody else who needs a part.
    ("gelu", ["Div 1.5", "Erf", "Add 1", "Mul x", "Mul 0.5"]),
    ("gelu", ["Div 1.4142135", "Erf", "Add 2", "Mul x", "Mul 0.5"]),
    ("gelu", ["Div 1.4142135", "Erf", "Add 1", "Mul x", "Mul 0.25"]),
    ("gelu_tanh", ["Mul x", "Mul x", "Mul 0.05", "Add x", *BELL]),
    ("gelu_tanh", ["Mul x", "Mul 0.044715", "Add x", *BELL]),
    ("gelu_tanh", ["Mul x", "Mul 0.044715", "Add 2", "Mul x", *BELL]),
    ("gelu_tanh", ["Pow 3", "Mul 0.044715", "Add x", "Mul 0.8", *BELL[1:]]),
    ("mish", ["Softplus", "Sigmoid", "Mul x"]),
    ("hard_swish", ["Add 3", "Clip 0 5", "Mul x", "Div 6"]),
    ("hard_swish", ["Add 2", "Clip 0 6", "Mul x", "Div 6"]),
    ("hard_sigmoid", ["Add 3", "Clip 0 6", "Div 5"]),
]


def judged(path: Path) -> Network:
    """The network of a model after all passes, which onnxruntime agrees with."""
    network = graph.optimise(read(path))
    inputs = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))
    return network


def chained(steps: list[str], folder: Path) -> Network:
    """A model of operators one after the other, right after all passes; operands are x, or numbers."""
    nodes, constants, name = [], {}, "x"
    for number, step in enumerate(steps):
        op, *operands = step.split()
        inputs = [name]
        for place, operand in enumerate(operands):
            inputs.append(operand if operand == "x" else f"c{number}{place}")
            if operand != "x":
                constants[inputs[-1]] = np.float32(operand)
        name = f"t{number}"
        nodes.append(helper.make_node(op, inputs, [name]))
    path = folder / "m.onnx"
    onnx.save(networks.model(nodes, {"x": (3, 5)}, [name], constants), path)
    return judged(path)


@pytest.mark.parametrize(("kind", "steps"), WHOLE)
def test_a_function_is_found_however_its_factors_are_grouped(
    kind: str, steps: list[str], tmp_path: Path
) -> None:
    assert kinds(chained(steps, tmp_path)) == {kind: 1}


@pytest.mark.parametrize(("kind", "steps"), ALMOST)
def test_what_is_almost_a_pattern_is_none(kind: str, steps: list[str], tmp_path: Path) -> None:
    assert kinds(chained(steps, tmp_path))[kind] == 0


def test_bends_join_the_convolution_before_them(tmp_path: Path) -> None:
    """With slopes for each channel, for all, or for each pixel, which come after it."""
    slopes = {"a": (8, 1, 1), "b": (1,), "c": (8, 9, 10)}
    nodes, name = [], "x"
    for number, slope in enumerate(slopes):
        nodes.append(helper.make_node("Conv", [name, "w"], [f"v{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("PRelu", [f"v{number}", slope], [f"t{number}"]))
        name = f"t{number}"
    nodes.append(helper.make_node("Conv", [name, "w"], ["v"], pads=[1] * 4))
    nodes.append(helper.make_node("LeakyRelu", ["v"], ["y"], alpha=0.2))
    constants = {key: networks.weights(f"slope {key}", shape) for key, shape in slopes.items()}
    constants["w"] = networks.weights("w", (8, 8, 3, 3))
    path = tmp_path / "m.onnx"
    onnx.save(networks.model(nodes, {"x": (1, 8, 9, 10)}, ["y"], constants, opset=11), path)
    network = graph.optimise(read(path))
    assert kernels(network) == {
        "conv2d+prelu": 2,
        "conv2d": 1,
        "prelu": 1,
        "conv2d+leaky_relu": 1,
        "transpose": 1,
    }
    inputs_ = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs_), networks.expected(path, inputs_))


@pytest.mark.parametrize(
    ("image", "weights", "words"),
    [
        ((2, 6, 11, 1), (4, 6, 3, 1), {"pads": [1, 0, 2, 0], "strides": [2, 1]}),
        ((2, 6, 11, 1), (6, 1, 3, 1), {"group": 6, "dilations": [2, 1]}),
        ((2, 6, 11), (6, 1, 4), {"group": 6, "strides": [3], "auto_pad": "SAME_UPPER"}),
        ((2, 6, 11, 1), (4, 3, 3, 1), {"group": 2}),
        ((2, 6, 11, 1), (4, 6, 3, 3), {"pads": [0, 1, 0, 1]}),
        ((2, 6, 3, 1), (4, 6, 3, 1), {"pads": [4, 0, 4, 0]}),
    ],
)
def test_columns_of_pixels_and_channels_alone_are_rows(
    image: tuple[int, ...], weights: tuple[int, ...], words: dict[str, Any], tmp_path: Path
) -> None:
    """What exporters make of convolutions over sequences; and what follows is still fused."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["v"], **words),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    constants = {"w": networks.weights("w", weights), "b": networks.weights("b", weights[:1])}
    path = tmp_path / "m.onnx"
    onnx.save(networks.model(nodes, {"x": image}, ["y"], constants), path)
    network = judged(path)
    (kernel,) = (each.attributes["kernel"] for each in network.program.operators if "conv" in each.kind)
    assert kernel == ((3, 3) if weights[2:] == (3, 3) else (1, weights[2]))
    assert [each for each in kernels(network) if each.endswith("conv2d+add+relu")]


@pytest.mark.parametrize("shape", [(4, 1), (1, 1, 1)])
def test_a_pattern_whose_constants_make_its_result_larger_is_none(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[-1]),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["q"]),
        helper.make_node("ReduceMean", ["q"], ["v"], axes=[-1]),
        helper.make_node("Add", ["v", "e"], ["s"]),
        helper.make_node("Sqrt", ["s"], ["r"]),
        helper.make_node("Div", ["d", "r"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    constants = {"e": np.full(shape, 1e-5, np.float32)}
    onnx.save(networks.model(nodes, {"x": (1, 8)}, ["y"], constants), path)
    network = graph.optimise(read(path))
    assert kinds(network)["layer_norm"] == 0
    inputs_ = networks.inputs_of(network)
    networks.assert_same(networks.run(network, inputs_), networks.expected(path, inputs_))


@pytest.mark.parametrize("alpha", [-1.5, 0.25, 2.0])
def test_celu_of_any_alpha(alpha: float, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        networks.model([helper.make_node("Celu", ["x"], ["y"], alpha=alpha)], {"x": (3, 5)}, ["y"]), path
    )
    judged(path)
