"""onnxruntime on a model's file, as whoever is compared with us: one thread, and all that it can fold."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from kernels.errors import InputError, MissingToolError
from kernels.models.exactly import make_exact
from kernels.models.onnx_file import fixed_inputs

OWN_INITIALISERS = 4
"""From this version of the format on, an initialiser need not be an input as well."""
ERRORS_ONLY = 3
"""Of its log."""


def name() -> str:
    """What it is called, with its version; MissingToolError where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingToolError(
            "onnxruntime is not installed, and nothing else runs a model: uv sync --group dev"
        )
    return f"onnxruntime {version('onnxruntime')}"


def open_session(
    path: Path,
    dims: Mapping[str, int] | None = None,
    *,
    profile: Path | None = None,
    also: Collection[str] = (),
    optimised: bool = True,
) -> Any:
    """A session of one thread, that runs one node after the other; exactly where it is not optimised.

    Initialisers are taken from the graph's inputs, where older exporters put them and where
    they could be overridden, so that it may fold what depends on them. `profile` is the
    beginning of a file's name for its own profile; `also` names tensors to give as outputs.
    InputError where it does not take the model.
    """
    called = name()
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for dimension, size in (dims or {}).items():
        options.add_free_dimension_override_by_name(dimension, size)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    model = _closed(path, also, dims or {})
    if not optimised:
        make_exact(model)
    try:
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its errors share no base class
        raise InputError(
            f"{path}: {called} did not take the model: {str(error).splitlines()[0]}"
        ) from error


def intermediates(
    path: Path, dims: Mapping[str, int], inputs: Mapping[str, Any], wanted: Collection[str]
) -> dict[str, Any]:
    """Those of the wanted tensors that the model has, as its nodes make them one by one."""
    made = {given for node in onnx.load(path, load_external_data=False).graph.node for given in node.output}
    session = open_session(path, dims, also=sorted(made.intersection(wanted)), optimised=False)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _closed(path: Path, also: Collection[str], dims: Mapping[str, int]) -> onnx.ModelProto:
    """The model with no input that has a value, be it by `dims`, and with more outputs."""
    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise InputError(f"{path}: not a readable ONNX model: {error}") from error
    fixed = fixed_inputs(model, dims)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in fixed.items())
    values = {each.name for each in model.graph.initializer}
    if values:
        model.ir_version = max(model.ir_version, OWN_INITIALISERS)
    inputs = [each for each in model.graph.input if each.name not in values]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    known = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=each) for each in also if each not in known)
    return model
