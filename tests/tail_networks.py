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
