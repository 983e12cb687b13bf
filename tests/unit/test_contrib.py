"""Operators of onnxruntime's own domain compute what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from kernels import graph
from kernels.errors import InputError
from kernels.models.contrib import FUNCTIONS
from kernels.models.exactly import make_exact
from kernels.models.inspection import inspect_onnx
from kernels.models.onnx_file import CONTRIB
from kernels.models.onnx_model import read_onnx
from tests import builders, networks
from tests.contrib import FUSED, Case, T, W, X, real
from tests.contrib_attention import ATTENTION, QKV, QKV_BIAS
from tests.contrib_integers import INTEGERS

K = real("k", 2, 6, 8)
NODES = [*FUSED, *ATTENTION, *INTEGERS]


@pytest.mark.parametrize("case", NODES, ids=lambda case: case.name)
def test_a_node_is_what_onnxruntime_takes_it_for(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = case.typed_model()
    onnx.save(model, path)
    make_exact(model)
    given = case.given()
    wanted = networks.expected(model.SerializeToString(), given)
    network = graph.optimise(read_onnx(path))
    found = networks.run(network, given)
    assert set(found) == set(wanted)
    for name, due in wanted.items():
        if due.dtype.kind in "iu" and due.dtype.itemsize == 1:
            off = np.abs(found[name].astype(int) - due.astype(int))
            assert off.max() <= 1
            assert np.count_nonzero(off) <= 0.02 * off.size, off
        else:
            networks.assert_same({name: found[name]}, {name: due})


def test_every_operator_is_tried() -> None:
    assert {case.op for case in NODES} == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("Attention", T, real("w", 8, 24)), "its attribute 'num_heads' is missing"),
        (Case("FusedConv", X, W, activation="Gelu"), "the activation 'Gelu' is not supported"),
        (Case("FusedConv", X, W, activation="Clip", activation_params=[1.0]), "does not fit"),
        (Case("SkipLayerNormalization", T, T, real("g", 8), outputs=2), "its output 'o1' is not supported"),
        (Case("MultiHeadAttention", T, num_heads=2), "queries, keys and values in one tensor"),
        (Case("MultiHeadAttention", T, K, K, num_heads=2, unidirectional=1), "other tokens as keys"),
        (Case("Attention", T, QKV, QKV_BIAS, np.arange(8, dtype=np.int32), num_heads=2), "mask of shape"),
        (Case("FusedMatMul", real("a", 4, 5), real("b", 4), transA=1), "a transposed matrix by a vector"),
        (Case("LongformerAttention", T), "no operator for this type of the domain 'com.microsoft'"),
    ],
    ids=lambda given: given.name if isinstance(given, Case) else "",
)
def test_what_is_not_supported_of_a_node_is_told(case: Case, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(case.model(dict.fromkeys(("o0", "o1"), onnx.TensorProto.FLOAT)), path)
    with pytest.raises(InputError, match=rf"m.onnx: node 'node' \({case.op}\): .*{message}"):
        read_onnx(path)


def test_weights_of_bytes_are_parameters(tmp_path: Path) -> None:
    (case,) = (case for case in INTEGERS if case.name == "QLinearConv-first")
    onnx.save(case.typed_model(), tmp_path / "m.onnx")
    found = inspect_onnx(tmp_path / "m.onnx", {})
    scales, zeros, weights = 3, 3, 4 * 3 * 3 * 3
    assert found.parameters == scales + zeros + weights
    assert found.parameter_bytes == 4 * scales + zeros + weights
    assert not found.missing


def test_a_model_for_one_processors_vectors_is_refused_with_what_to_do(tmp_path: Path) -> None:
    case = Case("ReorderInput", X, domain="com.microsoft.nchwc")
    onnx.save(case.model({"o0": onnx.TensorProto.FLOAT}), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="let it save no more than ORT_ENABLE_EXTENDED gives"):
        read_onnx(tmp_path / "m.onnx")


def test_names_inside_are_none_of_the_models_own(tmp_path: Path) -> None:
    """A sum inside the node would have the name of another tensor."""
    nodes = [
        helper.make_node("Neg", ["x"], ["n/Add.0.0"]),
        helper.make_node("BiasGelu", ["x", "b"], ["g"], name="n", domain=CONTRIB),
        helper.make_node("Add", ["g", "n/Add.0.0"], ["y"]),
    ]
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in {"x": (2, 3), "b": (3,), "y": (2, 3)}.items()
    }
    made = helper.make_graph(nodes, "g", [values["x"], values["b"]], [values["y"]])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    network = read_onnx(tmp_path / "m.onnx")
    given = networks.inputs_of(network)
    networks.assert_same(networks.run(network, given), networks.expected(tmp_path / "m.onnx", given))


def test_constants_that_are_computed_ahead_are_bounded(tmp_path: Path) -> None:
    sides = {"a": np.ones((1 << 16, 1), np.float32), "b": np.ones((1, 1 << 16), np.float32)}
    nodes = [helper.make_node("Mean", ["a", "b"], ["m"]), helper.make_node("Add", ["m", "x"], ["y"])]
    onnx.save(networks.model(nodes, {"x": (1,)}, ["y"], sides), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="elements of constants are computed ahead"):
        read_onnx(tmp_path / "m.onnx")


OPTIMISED = {
    "mobilenet_v3_small": (lambda: builders.mobilenet_v3(96), {}, {"FusedConv"}),
    "bert": (
        lambda: builders.bert(layers=2, hidden=64, heads=4, vocabulary=100),
        {"batch": 1, "sequence": 8},
        {"FusedGemm", "FusedMatMul", "BiasGelu", "SkipLayerNormalization"},
    ),
}


@pytest.mark.parametrize("name", OPTIMISED)
def test_a_network_that_onnxruntime_has_optimised(name: str, tmp_path: Path) -> None:
    make, dims, fused = OPTIMISED[name]
    onnx.save(make(), tmp_path / "made.onnx")
    path = tmp_path / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "made.onnx", options, providers=["CPUExecutionProvider"])
    assert fused <= {node.op_type for node in onnx.load(path).graph.node if node.domain == CONTRIB}
    network = graph.optimise(read_onnx(path, dims))
    inputs = {
        name: np.minimum(value, 1) if value.dtype.kind == "i" else value  # there are two types of tokens
        for name, value in networks.inputs_of(network).items()
    }
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))
