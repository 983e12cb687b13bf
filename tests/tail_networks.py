"""Networks in which nodes that no family knows stand between those that some do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from kernels.models.oracle import Oracle
from kernels.program import Network
from kernels.whole import Reference, draw_inputs

FLOAT = onnx.TensorProto.FLOAT
SHAPES = {"x": [2, 3, 9, 11], "grid": [2, 5, 7, 2]}


def sampled(folder: Path) -> Path:
    """A convolution, whose result is sampled at places that depend on data, by which the rest weighs it."""
    random = np.random.Generator(np.random.PCG64(7))
    weights = random.standard_normal((4, 3, 3, 3)).astype(np.float32) / 5
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["image"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "GridSample", ["image", "grid"], ["taken"], name="take", padding_mode="reflection"
        ),
        helper.make_node("LpPool", ["taken"], ["norms"], name="norm", kernel_shape=[3, 3], p=3),
        helper.make_node("Relu", ["norms"], ["positive"], name="relu"),
        helper.make_node("Hardmax", ["positive"], ["chosen"], name="choose", axis=1),
        helper.make_node("Mul", ["chosen", "norms"], ["y"], name="weigh"),
    ]
    graph = helper.make_graph(
        nodes,
        "sampled",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in SHAPES.items()],
        [helper.make_tensor_value_info("y", FLOAT, [2, 4, 3, 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = folder / "sampled.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def every(folder: Path) -> Path:
    """A node of each row of the table, and of some in several forms, at odd sizes."""
    inputs = {
        "x": (FLOAT, [2, 3, 9, 11]),
        "bytes": (onnx.TensorProto.UINT8, [1, 3, 7, 9]),
        "theta": (FLOAT, [2, 2, 3]),
        "grid": (FLOAT, [2, 5, 7, 2]),
        "scale": (FLOAT, [3]),
        "bias": (FLOAT, [3]),
        "mean": (FLOAT, [3]),
        "spread": (FLOAT, [3]),
        "rois": (FLOAT, [5, 4]),
        "numbers": (onnx.TensorProto.INT64, [5]),
        "small": (FLOAT, [2, 2, 3, 5]),
        "row": (FLOAT, [1, 11]),
    }
    constants = {
        "size": np.array([2, 3, 5, 7]),
        "two": np.array(2),
        "places": np.random.default_rng(3).permutation(60).reshape(2, 2, 3, 5),
    }
    window = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("AffineGrid", ["theta", "size"], ["affine"], align_corners=1),
        helper.make_node("GridSample", ["x", "grid"], ["cubic"], mode="cubic", padding_mode="border"),
        helper.make_node("GridSample", ["x", "grid"], ["nearest"], mode="nearest", align_corners=1),
        helper.make_node("GridSample", ["x", "grid"], ["linear"], padding_mode="reflection"),
        helper.make_node("Abs", ["spread"], ["variance"]),
        helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["batch"]),
        helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["instance"]),
        helper.make_node("Hardmax", ["x"], ["hard"], axis=2),
        helper.make_node("LpPool", ["x"], ["powers"], p=1, **window),
        helper.make_node("MaxPool", ["bytes"], ["largest"], **window),
        helper.make_node(
            "MaxUnpool", ["small", "places"], ["spreadout"], kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Mean", ["x", "row", "x"], ["middle"]),
        helper.make_node(
            "RoiAlign",
            ["x", "rois", "numbers"],
            ["regions"],
            output_height=3,
            output_width=2,
            sampling_ratio=2,
            spatial_scale=4.0,
        ),
        helper.make_node("Shrink", ["x"], ["shrunk"], lambd=0.3, bias=0.1),
        helper.make_node("Trilu", ["x", "two"], ["upper"], upper=1),
    ]
    graph = helper.make_graph(
        nodes,
        "every",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [
            helper.make_tensor_value_info(
                node.output[0], onnx.TensorProto.UINT8 if node.output[0] == "largest" else FLOAT, None
            )
            for node in nodes
            if node.op_type != "Abs"
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = folder / "every.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


class Evaluator(Oracle):
    """The reference evaluator of the onnx package, on a model's file."""

    identity = f"the reference evaluator of onnx {onnx.__version__}"

    def __init__(self, path: Path) -> None:
        """The model's file."""
        self._evaluator = ReferenceEvaluator(str(path))

    def ask(self, network: Network) -> Reference:
        """Its outputs for drawn inputs."""
        inputs = draw_inputs(network)
        names = self._evaluator.output_names
        outputs = dict(zip(names, self._evaluator.run(None, inputs), strict=True))
        return Reference(source=self.identity, inputs=inputs, outputs=outputs)
