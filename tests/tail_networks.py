"""Networks in which nodes that no family knows stand between those that some do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from kernels.models import onnx_model
from kernels.models.onnx_tail import TAIL, Row
from kernels.models.oracle import Oracle
from kernels.operators import importers
from kernels.program import ElementType, Network
from kernels.whole import Reference, draw_inputs

Array = NDArray[Any]
FLOAT, INT64, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.UINT8
COUNTED = TAIL["RoiAlign"].types
MORE = {
    "BatchNormalization": Row(tests=("",), buffers=1),
    "GridSample": Row(tests=("",), buffers=1),
    "Hardmax": Row(tests=("",), buffers=2),
    "InstanceNormalization": Row(tests=("",), buffers=2),
    "LpPool": Row(tests=("",), buffers=2),
    "MaxPool": Row(tests=("",), buffers=1, types=frozenset((ElementType.UINT8,))),
    "MaxUnpool": Row(tests=("",), buffers=2, types=COUNTED, limits={1: lambda shapes: prod(shapes[0])}),
    "Mean": Row(tests=("",), buffers=2),
    "Shrink": Row(tests=("",), buffers=3),
    "Trilu": Row(tests=("",), buffers=1, types=COUNTED),
}
"""Rows for types that have, or may get, modules of their own: TVM makes of them what it makes of nothing
in the table, such as elementary functions, indices, divisions and constants."""


@contextmanager
def trusting(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, the importer is trusted with MORE, which our own modules then do not take."""
    own = {op: importer for op, importer in importers().items() if op not in MORE}
    with patch.context() as within:
        within.setattr(onnx_model, "importers", lambda: own)
        for op, row in MORE.items():
            within.setitem(TAIL, op, row)
        yield


def _saved(
    name: str,
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    outputs: dict[str, int],
    constants: dict[str, Array],
) -> Path:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(given, *each) for given, each in inputs.items()],
        [helper.make_tensor_value_info(made, kind, None) for made, kind in outputs.items()],
        [numpy_helper.from_array(value, given) for given, value in constants.items()],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


PLACES = {"coordinate_transformation_mode": "output_half_pixel"}


def detector(folder: Path) -> Path:
    """Regions of a convolution's result, as detectors have them, of an image of bytes made smaller."""
    random = np.random.Generator(np.random.PCG64(7))
    weights = random.standard_normal((4, 3, 3, 3)).astype(np.float32) / 5
    nodes = [
        helper.make_node("MaxPool", ["bytes"], ["few"], name="fewer", kernel_shape=[2, 3], strides=[2, 2]),
        helper.make_node("Cast", ["few"], ["x"], name="real", to=FLOAT),
        helper.make_node("Conv", ["x", "w"], ["image"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "RoiAlign",
            ["image", "rois", "numbers"],
            ["regions"],
            name="take",
            output_height=3,
            output_width=5,
            spatial_scale=4.0,
            **PLACES,
        ),
        helper.make_node("Relu", ["regions"], ["y"], name="relu"),
    ]
    inputs = {"bytes": (UINT8, [2, 3, 18, 23]), "rois": (FLOAT, [5, 4]), "numbers": (INT64, [5])}
    return _saved("detector", folder, nodes, inputs, {"y": FLOAT}, {"w": weights})


def every(folder: Path) -> Path:
    """A node of each row, and of some in several forms, at odd sizes."""
    inputs = {
        "x": (FLOAT, [2, 3, 9, 11]),
        "bytes": (UINT8, [1, 3, 7, 9]),
        "grid": (FLOAT, [2, 5, 7, 2]),
        "scale": (FLOAT, [3]),
        "bias": (FLOAT, [3]),
        "mean": (FLOAT, [3]),
        "spread": (FLOAT, [3]),
        "rois": (FLOAT, [5, 4]),
        "numbers": (INT64, [5]),
        "small": (FLOAT, [2, 2, 3, 5]),
        "row": (FLOAT, [1, 11]),
    }
    places = np.random.Generator(np.random.PCG64(3)).permutation(60).reshape(2, 2, 3, 5)
    window = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("GridSample", ["x", "grid"], ["cubic"], mode="cubic", padding_mode="border"),
        helper.make_node("GridSample", ["x", "grid"], ["nearest"], mode="nearest", align_corners=1),
        helper.make_node("GridSample", ["x", "grid"], ["linear"], padding_mode="reflection"),
        helper.make_node("Abs", ["spread"], ["variance"]),
        helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["batch"]),
        helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["instance"]),
        helper.make_node("Hardmax", ["x"], ["hard"], axis=2),
        helper.make_node("LpPool", ["x"], ["powers"], p=3, **window),
        helper.make_node("MaxPool", ["bytes"], ["largest"], **window),
        helper.make_node("MaxUnpool", ["small", "places"], ["apart"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mean", ["x", "row", "x"], ["middle"]),
        helper.make_node(
            "RoiAlign",
            ["x", "rois", "numbers"],
            ["regions"],
            output_height=3,
            output_width=2,
            sampling_ratio=2,
            spatial_scale=4.0,
            **PLACES,
        ),
        helper.make_node("Shrink", ["x"], ["shrunk"], lambd=0.3, bias=0.1),
        helper.make_node("Trilu", ["x", "two"], ["upper"], upper=1),
    ]
    outputs = {node.output[0]: FLOAT for node in nodes if node.op_type != "Abs"} | {"largest": UINT8}
    return _saved("every", folder, nodes, inputs, outputs, {"places": places, "two": np.array(2)})


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
