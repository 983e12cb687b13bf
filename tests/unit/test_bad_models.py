"""Models that cannot be accepted: one line that names the file and the fault, at once."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kernels import graph
from kernels.errors import LONGEST, InputError
from kernels.graph.network import plan_network
from kernels.models.inspection import inspect_onnx
from kernels.plan import Plan
from tests import builders, networks
from tests.conftest import ROOT
from tests.unit.test_onnx import read
from toolchains.target import find_target

TARGET = find_target("x86_64")
X = {"x": (1, 3, 8, 8)}
W = {"w": np.ones((4, 3, 3, 3), np.float32)}


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def most_memory(of: Callable[[], object]) -> int:
    """Bytes that Python and NumPy hold at once, at most."""
    tracemalloc.start()
    try:
        of()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path: Path) -> str:
    """The error's text, which is one line and names the file."""
    with pytest.raises(InputError) as caught:
        graph.optimise(read(path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


def node(op: str, *inputs: str, name: str = "node1", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, ["y"], name=name, **attributes)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (node("Conv", "x", "w", strides=[1]), "node 'node1' (Conv): Attribute strides has incorrect size"),
        (node("Conv", "x", "w", group=2), "node 'node1' (Conv): attributes.groups = 2 must divide"),
        (node("Det", "x"), "node 'node1' (Det): kernfit has no operator"),
        (
            node("MaxPool", "x", kernel_shape=[9, 9]),
            "node 'node1' (MaxPool): attributes.kernel = [9, 9] is",
        ),
        (node("MatMul", "x", "x7"), "node 'node1' (MatMul) reads 'x7', which nothing computes"),
        (node("Relu", "y"), "node 'node1' (Relu) reads 'y' before it is computed"),
        (node("Relu", "x", name=""), ""),
    ],
)
def test_a_node_is_named(made: onnx.NodeProto, message: str, tmp_path: Path) -> None:
    model = networks.model([made], X, ["y"], W)
    if message:
        assert message in refused(saved(model, tmp_path))
    else:
        assert read(saved(model, tmp_path)).program.operators[0].name == "y"


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    model = networks.model([node("Relu", "wrong")], {"wrong": (2, 3)}, ["y"])
    path = saved(model, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"wrong", b"wr\x83ng"))
    assert "where UTF-8 belongs" in refused(path)


BOUNDED = """
import resource, sys
from pathlib import Path
from kernels.models import read_model
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
read_model(Path(sys.argv[1]))
"""


def test_a_long_vector_takes_no_memory(tmp_path: Path) -> None:
    """ONNX's inference that follows contents has 140 bytes for each element: 2 GB here."""
    path = saved(networks.model([node("Sub", "x", "x")], {"x": (1 << 24,)}, ["y"]), tmp_path)
    subprocess.run([sys.executable, "-c", BOUNDED, str(path)], check=True, cwd=ROOT)


def test_random_bytes_and_truncated_files_are_no_models(tmp_path: Path) -> None:
    whole = builders.mobilenet_v3(32, 10).SerializeToString()
    path = tmp_path / "m.onnx"
    for content in (b"", b"\0" * 100, b"\xff" * 1000, networks.generator("bytes").bytes(5000)):
        path.write_bytes(content)
        refused(path)
    for part in (0.01, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_model_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(content))
    with suppress(InputError):
        graph.optimise(read(path))


SMALL = networks.model(
    [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "s"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=-1),
    ],
    X,
    ["y"],
    {"w": np.ones((2, 3, 1, 1), np.float32), "s": np.array([1, -1], np.int64)},
).SerializeToString()


@pytest.mark.parametrize("shape", [[10 << 30], [1 << 40, 1 << 40], [100000, 100000, 1], [-1, 4]])
def test_a_claim_of_much_memory_takes_none(shape: list[int], tmp_path: Path) -> None:
    model = networks.model([node("Add", "x", "w")], X, ["y"], {"w": np.ones(1, np.float32)})
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(shape)
    path = saved(model, tmp_path)

    def refuse() -> None:
        assert "initializer 'w'" in refused(path)

    assert most_memory(refuse) < 50 << 20


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_a_constant_of_much_memory_is_refused(op: str, tmp_path: Path) -> None:
    many = np.array([1 << 20, 1 << 20], np.int64)
    constants = {
        "ConstantOfShape": [many],
        "Expand": [np.ones((1, 1), np.float32), many],
        "Tile": [np.ones((1, 1), np.float32), many],
        "Range": [np.array(0), np.array(1 << 45), np.array(1)],
    }[op]
    names = {f"c{number}": value for number, value in enumerate(constants)}
    nodes = [helper.make_node(op, list(names), ["big"], name="big"), node("Shape", "big")]
    text = refused(saved(networks.model(nodes, X, ["y"], names, types={"y": TensorProto.INT64}), tmp_path))
    assert "too large" in text


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "missing.bin", "link.bin", ""])
def test_weights_are_read_from_the_models_folder_alone(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    assert "in the model's folder" in refused(external(location, folder))


def external(location: str, folder: Path, **more: str) -> Path:
    """A convolution whose weights are said to be in another file."""
    model = networks.model([node("Conv", "x", "w")], X, ["y"], W)
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return saved(model, folder)


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    random = networks.weights("w", (4, 3, 3, 3))
    (tmp_path / "w.bin").write_bytes(b"\0" * 64 + random.tobytes())
    network = read(external("w.bin", tmp_path, offset="64", length="432"))
    (value,) = (array for array in network.constants.values() if array.ndim == 4)
    np.testing.assert_array_equal(value, random.transpose(0, 2, 3, 1))
    assert "does not hold the 432 bytes" in refused(external("w.bin", tmp_path, offset="65"))
    assert "does not hold the 432 bytes" in refused(external("w.bin", tmp_path, length="4000000000"))
    refused(external("w.bin", tmp_path, offset="many"))


def test_an_attribute_that_refers_to_no_function_is_refused(tmp_path: Path) -> None:
    model = networks.model([node("LeakyRelu", "x", alpha=0.5)], X, ["y"])
    model.graph.node[0].attribute[0].ref_attr_name = "slope"
    assert "attribute 'alpha' refers to a function's 'slope'" in refused(saved(model, tmp_path))


def test_old_or_unknown_opsets_are_refused(tmp_path: Path) -> None:
    model = networks.model([node("Relu", "x")], X, ["y"])
    for version in (1, 6, 999):
        model.opset_import[0].version = version
        assert "opsets 7 to" in refused(saved(model, tmp_path))


def test_names_that_collide_stay_apart(tmp_path: Path) -> None:
    names = ["a.b", "a/b", "A:b", "a b", "1", "int", "run", "日本", "a_b_2", "a_b"]
    nodes, last = [], "x"
    for number, name in enumerate(names):
        nodes.append(helper.make_node(("Exp", "Log")[number % 2], [last], [f"{name}!"], name=name))
        last = f"{name}!"
    path = saved(networks.model(nodes, {"x": (2, 3)}, [last]), tmp_path)
    network = graph.optimise(read(path))
    found = [operator.group for operator in network.program.operators]
    assert len({name.lower() for name in found}) == len(names)
    assert all(name.isidentifier() and name.isascii() for name in found)


def test_scalars_and_unused_inputs_and_weights_of_nan(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Add", ["m", "nan"], ["y"]),
        helper.make_node("Mul", ["s", "s"], ["z"]),
    ]
    constants = {"nan": np.array([np.nan, 1], np.float32)}
    path = saved(
        networks.model(nodes, {"x": (2, 3), "s": (), "unused": (4,)}, ["y", "z"], constants), tmp_path
    )
    network = graph.optimise(read(path))
    inputs = networks.inputs_of(network)
    assert list(inputs) == ["x", "s", "unused"]
    networks.assert_same(networks.run(network, inputs), networks.expected(path, inputs))


def test_an_unsupported_function_of_the_model_is_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Add", ["b", "b"], ["c"])]
    function = helper.make_function("own", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    made = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(made, functions=[function], opset_imports=opsets, ir_version=8)
    kinds = [operator.kind for operator in graph.optimise(read(saved(model, tmp_path))).program.operators]
    assert kinds == ["relu", "add"]


@pytest.mark.parametrize("op", ["Relu", "Add", "Shape", "NonZero", "If"])
@pytest.mark.parametrize("constant", [False, True], ids=["given", "constant"])
def test_an_operator_of_another_domain_is_not_onnxs(op: str, tmp_path: Path, *, constant: bool) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2,))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (2,))
    given = ["w"] if constant else ["x"]
    made = helper.make_graph(
        [
            helper.make_node(op, given * (1 + (op == "Add")), ["t"], domain="own", name="n"),
            helper.make_node("Add", ["t", "x"], ["y"]),
        ],
        "g",
        [x],
        [y],
        [numpy_helper.from_array(np.ones(2, np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = saved(helper.make_model(made, opset_imports=opsets, ir_version=8), tmp_path)
    with pytest.raises(InputError, match=rf"'n' \({op}\): kernfit has no operator .* domain 'own'"):
        read(path)


def test_onnxs_own_domain_has_two_names(tmp_path: Path) -> None:
    """Hardmax meant something else before opset 13, so that it matters which one is found."""
    model = networks.model([helper.make_node("Hardmax", ["x"], ["y"])], {"x": (2, 3, 4)}, ["y"])
    wanted = read(saved(model, tmp_path)).program.operators
    model.graph.node[0].domain = "ai.onnx"
    assert read(saved(model, tmp_path)).program.operators == wanted
    model.opset_import[0].domain = "ai.onnx"
    assert read(saved(model, tmp_path)).program.operators == wanted


BODY = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["s"], ["r"])],
    "body",
    [
        helper.make_tensor_value_info("i", TensorProto.INT64, ()),
        helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, (2, 3)),
    ],
    [
        helper.make_tensor_value_info("on", TensorProto.BOOL, ()),
        helper.make_tensor_value_info("r", TensorProto.FLOAT, (2, 3)),
    ],
)
YES, TWICE = np.ones((), bool), np.array(2)
STRINGS = helper.make_tensor("v", TensorProto.STRING, [2], [b"a", b"b"])


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [node("Loop", "n", "go", "x", body=BODY)],
            {"n": TWICE},
            "(Loop): its condition ('go') must be constant",
        ),
        (
            [
                helper.make_node("Constant", [], ["s"], name="text", value=STRINGS),
                node("StringNormalizer", "s"),
            ],
            {},
            "node 'node1' (StringNormalizer): strings are not supported",
        ),
        ([node("NonZero", "x")], {}, "node 'node1' (NonZero): the shape of its result"),
        (
            [node("Resize", "x", "", "s")],
            {"s": np.array([1, np.nan], np.float32)},
            "node 'node1' (Resize): scales [1.0, nan]",
        ),
        (
            [node("Resize", "x", "", "s")],
            {"s": np.array([1, 1e9], np.float32)},
            "node 'node1' (Resize): scales [1.0, 1000000000.0]",
        ),
        ([node("Conv", "x4", "w", pads=[1 << 40] * 4)], W, "node 'node1' (Conv): a result of"),
        ([node("LRN", "x4", size=3, alpha=float("nan"))], {}, "node 'node1' (LRN): lrn's alpha is nan"),
    ],
)
def test_what_no_library_can_be_is_refused_with_its_node(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    last = nodes[-1].output[0]
    kinds = {last: TensorProto.INT64} if nodes[-1].op_type == "NonZero" else {}
    if nodes[-1].op_type == "StringNormalizer":
        kinds = {last: TensorProto.STRING}
    inputs = {"x": (2, 3), "x4": (1, 3, 8, 8), "go": ()}
    kinds["go"] = TensorProto.BOOL
    model = networks.model(nodes, inputs, [last], constants, types=kinds)
    assert message in refused(saved(model, tmp_path))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, (2, 3)), "is a sequence, and not"),
        (helper.make_tensor_value_info("x", TensorProto.STRING, (2, 3)), "is of type string"),
        (helper.make_tensor_value_info("x", TensorProto.COMPLEX64, (2, 3)), "is of type complex64"),
        (helper.make_tensor_value_info("x", TensorProto.FLOAT, None), "no tensor of a known number of"),
        (helper.make_tensor_value_info("x", TensorProto.FLOAT, ("b", "s")), "say --dim b=... --dim s=..."),
        (helper.make_tensor_value_info("x", TensorProto.FLOAT, (None, 3)), "say --dim x.0=..."),
    ],
)
def test_inputs_that_are_no_static_tensors_of_numbers_are_refused(
    value: onnx.ValueInfoProto, message: str, tmp_path: Path
) -> None:
    output = helper.make_tensor_value_info("y", value.type.tensor_type.elem_type or TensorProto.FLOAT, None)
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [output])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert message in refused(saved(model, tmp_path))


def test_errors_stay_short_whatever_names_are(tmp_path: Path) -> None:
    name = "very/long\n" * 100_000
    text = refused(saved(networks.model([node("DFT", "x", name=name)], X, ["y"]), tmp_path))
    assert len(text) == LONGEST


def test_parts_that_nothing_joins_are_computed_or_dropped(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Exp", ["a"], ["y"]),
        helper.make_node("Neg", ["b"], ["z"]),
        helper.make_node("Sqrt", ["c"], ["unused"]),
    ]
    inputs = {"a": (2, 3), "b": (4,), "c": (5,)}
    path = saved(networks.model(nodes, inputs, ["y", "z"]), tmp_path)
    network = graph.optimise(read(path))
    assert [operator.kind for operator in network.program.operators] == ["exp", "negative"]
    given = networks.inputs_of(network)
    networks.assert_same(networks.run(network, given), networks.expected(path, given))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("op", ["Pow", "Pad", "HardSigmoid", "LeakyRelu", "Conv", "Gemm"])
def test_weights_and_attributes_that_are_no_numbers_are_theirs(
    op: str, value: float, tmp_path: Path
) -> None:
    constant = np.array(value, np.float32)
    made, constants = {
        "Pow": (node(op, "x", "v"), {"v": constant}),
        "Pad": (node(op, "x", "p", "v"), {"p": np.array([0, 1, 1, 0]), "v": constant}),
        "HardSigmoid": (node(op, "x", beta=value), {}),
        "LeakyRelu": (node(op, "x", alpha=value), {}),
        "Conv": (node(op, "x4", "v"), {"v": np.full((2, 3, 1, 1), value, np.float32)}),
        "Gemm": (node(op, "x", "v", alpha=value), {"v": np.ones((3, 2), np.float32)}),
    }[op]
    path = saved(networks.model([made], {"x": (2, 3), "x4": (1, 3, 2, 2)}, ["y"], constants), tmp_path)
    network = graph.optimise(read(path))
    plan = plan_network(network, TARGET)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    given = networks.inputs_of(network)
    with np.errstate(all="ignore"):
        networks.assert_same(networks.run(network, given), networks.expected(path, given))


def test_inspection_names_every_missing_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("RandomNormalLike", ["c"], ["s"], name="first"),
        helper.make_node("Relu", ["s"], ["r"], name="relu"),
        helper.make_node("RandomUniformLike", ["r"], ["y"], name="second"),
    ]
    found = inspect_onnx(saved(networks.model(nodes, X, ["y"], W), tmp_path), {})
    assert [(each.node, each.op) for each in found.missing] == [
        ("first", "RandomNormalLike"),
        ("second", "RandomUniformLike"),
    ]
    assert all("result is random" in each.reason for each in found.missing)
    assert found.operators == {"Conv": 1, "RandomNormalLike": 1, "Relu": 1, "RandomUniformLike": 1}
    assert (found.parameters, found.parameter_bytes) == (108, 432)
    assert found.flops == 2 * 108 * 36 + 4 * 36
    assert found.unseen == 0


@pytest.mark.parametrize(
    ("low", "high"), [(np.inf, np.inf), (-np.inf, -np.inf), (-np.inf, 0.25), (0.25, np.inf)]
)
def test_bounds_without_an_end_are_bounds(low: float, high: float, tmp_path: Path) -> None:
    bounds = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    path = saved(networks.model([node("Clip", "x", "low", "high")], {"x": (2, 3)}, ["y"], bounds), tmp_path)
    network = graph.optimise(read(path))
    given = networks.inputs_of(network)
    np.testing.assert_array_equal(networks.run(network, given)["y"], np.clip(given["x"], low, high))
