"""Who says what a network ought to compute: onnxruntime where it is there, else its operators."""

from __future__ import annotations

import abc
import importlib
import importlib.util
from importlib.metadata import version
from pathlib import Path

from kernels.program import Network
from kernels.whole import COMPOSED, Reference, compose, draw_inputs


class Oracle(abc.ABC):
    """`identity` changes when its answer to the same network would."""

    identity: str

    @abc.abstractmethod
    def ask(self, network: Network) -> Reference:
        """Inputs for the network, and its outputs."""


class Composition(Oracle):
    """The operators' references: ours, so that it cannot find what was misread."""

    identity = COMPOSED

    def ask(self, network: Network) -> Reference:
        """One operator after the other, in float64."""
        return compose(network)


class OnnxRuntime(Oracle):
    """The model's own file, run by onnxruntime, which shares no code with us.

    Node by node, as they stand: what it makes of quantised ones together saturates on processors
    without VNNI (its documentation on quantisation, "saturation" of U8S8), and is not what ONNX defines.
    """

    def __init__(self, path: Path) -> None:
        """The model's file."""
        self._path = path
        self.identity = f"onnxruntime {version('onnxruntime')}, node by node"

    def ask(self, network: Network) -> Reference:
        """Its outputs; or the composition's, with the reason, where it does not take the model."""
        runtime = importlib.import_module("onnxruntime")
        inputs = draw_inputs(network)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = runtime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
            names = [each.name for each in session.get_outputs()]
            outputs = dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # noqa: BLE001 - its errors share no base class
            reference = compose(network)
            told = str(error).splitlines()[0]
            source = f"{reference.source}; {self.identity} did not take the model: {told}"
            return Reference(source=source, inputs=reference.inputs, outputs=reference.outputs)
        return Reference(source=self.identity, inputs=inputs, outputs=outputs)


def oracle_for(path: Path) -> Oracle:
    """The best oracle of this machine for a model's file."""
    known = importlib.util.find_spec("onnxruntime") is not None
    return OnnxRuntime(path) if known else Composition()
