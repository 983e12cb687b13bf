"""Who says what a network ought to compute: onnxruntime where it is there, else its operators."""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kernels.operators.base import Array
from kernels.program import Network
from kernels.whole import BYTES, COMPOSED, NORMWISE, Reference, compose, draw_inputs

PROVIDERS = ["CPUExecutionProvider"]
SHIFTS = 3
"""Times that inputs are moved."""
GROWTH = 16.0
"""Times what its outputs move when inputs do by a unit in the last place, a network's may be off.

Where each step is backward stable, what float32 gives is exact for inputs that are a few units off (Higham,
"Accuracy and Stability of Numerical Algorithms", 2nd ed., 2002, section 1.5), and so are onnxruntime's
results. Some networks make much of that: logarithms of sums that cancel, a steep function at the end.
"""
MOST = 0.05
"""Of an output's largest magnitude: beyond that a judgement would mean nothing."""
SENSITIVE = "its results move by {:.0e} of the largest when inputs, or else weights, do by a last place"


def shifted(inputs: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """The inputs, each floating-point number at its next neighbour on one side or the other."""
    generator = np.random.default_rng(seed)
    return {
        name: np.nextafter(array, generator.choice(np.array([-np.inf, np.inf], array.dtype), array.shape))
        if array.dtype in (np.float32, np.float16)
        else array
        for name, array in inputs.items()
    }


def distance(one: Array, other: Array) -> float:
    """How far an output of numbers with a point, or of bytes, is from another, of its largest magnitude."""
    if not one.size or (one.dtype.kind != "f" and one.dtype.name not in BYTES):
        return 0.0
    with np.errstate(all="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
        largest = float(np.abs(one[np.isfinite(one)].astype(np.float64)).max(initial=0.0))
    return float(apart[np.isfinite(apart)].max(initial=0.0)) / largest if largest else 0.0


def has_numbers(array: Array) -> bool:
    """Whether an output says anything: not where each of its elements is infinite or NaN."""
    return not array.size or array.dtype.kind != "f" or bool(np.isfinite(array).any())


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
    By one thread: it quantises the states of a batch for each thread by itself.
    """

    def __init__(self, path: Path, dims: Mapping[str, int] | None = None) -> None:
        """The model's file, and what it was read with."""
        self._path, self._dims = path, dims or {}
        self.identity = f"onnxruntime {version('onnxruntime')}, node by node"

    def ask(self, network: Network) -> Reference:
        """Its outputs; or the composition's, with the reason, where it does not take the model.

        Integers that are all 1 are tried where others make an output without a number in it: a length of 0.
        """
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        try:
            session = self._session(options)
            names, fixed = [each.name for each in session.get_outputs()], self._fixed()
            for least in (0, 1):
                inputs = draw_inputs(network, least)
                outputs = dict(zip(names, session.run(names, {**inputs, **fixed}), strict=True))
                if all(map(has_numbers, outputs.values())):
                    break
        except Exception as error:  # noqa: BLE001 - its errors share no base class
            reference = compose(network)
            told = str(error).splitlines()[0]
            source = f"{reference.source}; {self.identity} did not take the model: {told}"
            return Reference(source=source, inputs=reference.inputs, outputs=reference.outputs)
        if any(array.dtype.kind == "f" for array in inputs.values()):
            others = [session.run(names, {**shifted(inputs, seed), **fixed}) for seed in range(SHIFTS)]
        else:
            others = [each.run(names, {**inputs, **fixed}) for each in self._with_other_weights(options)]
        moved = {
            name: max((distance(outputs[name], other[number]) for other in others), default=0.0)
            for number, name in enumerate(names)
        }
        loose = {name: min(far * GROWTH, MOST) for name, far in moved.items() if far * GROWTH > NORMWISE}
        said = [SENSITIVE.format(max(moved.values()))] if loose else []
        said += [f"no number is in '{name}'" for name, array in outputs.items() if not has_numbers(array)]
        return Reference(
            source="; ".join([self.identity, *said]), inputs=inputs, outputs=outputs, looser=loose
        )

    def _session(self, options: Any) -> Any:
        """Of the model as it computes exactly; or else as it is, for not all is taken otherwise."""
        return _first([self._model, lambda: str(self._path)], options)

    def _model(self) -> str | bytes:
        """Its file, or what stands for that where products of bytes could saturate."""
        exactly = importlib.import_module("kernels.models.exactly")  # the onnx package takes a while
        nodes = exactly.onnx.load(self._path, load_external_data=False).graph.node
        if not any(node.op_type in exactly.FACTORS for node in nodes):
            return str(self._path)
        model = exactly.onnx.load(self._path)
        exactly.make_exact(model)
        return bytes(model.SerializeToString())

    def _with_other_weights(self, options: Any) -> Iterator[Any]:
        """A session of the model with its matrices moved, for inputs that are whole numbers cannot be.

        None where the weights are in files beside it, which may be larger than a message can be.
        """
        onnx = importlib.import_module("onnx")
        model = onnx.load(self._path, load_external_data=False)
        if any(map(onnx.external_data_helper.uses_external_data, model.graph.initializer)):
            return
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        moved = shifted({name: array for name, array in arrays.items() if array.ndim > 1}, seed=0)
        for tensor in model.graph.initializer:
            if tensor.name in moved:
                tensor.CopyFrom(onnx.numpy_helper.from_array(moved[tensor.name], tensor.name))
        plain = model.SerializeToString()
        importlib.import_module("kernels.models.exactly").make_exact(model)
        yield _first([model.SerializeToString, lambda: plain], options)

    def _fixed(self) -> dict[str, Array]:
        """The values of inputs that the network has not, as they are constants there."""
        if not self._dims:
            return {}
        file = importlib.import_module("kernels.models.onnx_file")  # the onnx package takes a while
        model = file.onnx.load(self._path, load_external_data=False)
        found: dict[str, Array] = file.fixed_inputs(model, self._dims)
        return found


def _first(models: Sequence[Callable[[], str | bytes]], options: Any) -> Any:
    """A session of the first model that onnxruntime takes; its error if that is none."""
    runtime = importlib.import_module("onnxruntime")
    *others, last = models
    for model in others:
        with contextlib.suppress(Exception):  # its errors share no base class
            return runtime.InferenceSession(model(), options, providers=PROVIDERS)
    return runtime.InferenceSession(last(), options, providers=PROVIDERS)


def oracle_for(path: Path, dims: Mapping[str, int] | None = None) -> Oracle:
    """The best oracle of this machine for a model's file, which was read with `dims`."""
    known = importlib.util.find_spec("onnxruntime") is not None
    return OnnxRuntime(path, dims) if known else Composition()
