"""Writes a torch program as ONNX, by torch's own exporter: a program by itself.

It is started by `toolchains/torch_program.py` with whatever Python has torch, which need not be
kernfit's; so it imports nothing of kernfit, and says how it ended in files of its folder:
`model.onnx`, or `failure.json` with an exit status and a line of text.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

WRONG_WORDS, BAD_INPUT, MISSING = 2, 3, 4
"""Exit statuses, as in `kernels.errors`."""
INLINE_BYTES = 1 << 30
"""Larger weights lie in a file beside the model, for protobuf reads no 2 GiB."""
NEEDED = ("torch", "onnxscript")


class FailedError(Exception):
    """Why there is no model: an exit status and one line."""


def main() -> None:
    """`python torch_exporter.py FACTORY FOLDER`, in the folder from which FACTORY is imported."""
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` has it, in the place of this file's folder
    factory, folder = sys.argv[1], Path(sys.argv[2])
    try:
        _export(factory, folder / "model.onnx")
    except FailedError as failure:
        status, line = failure.args
        text = " ".join(str(line).split())
        (folder / "failure.json").write_text(json.dumps({"status": status, "line": text}), encoding="utf-8")
        sys.exit(status)


def _export(word: str, path: Path) -> None:
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise FailedError(MISSING, name)
    factory = _found(word)
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    try:
        made = factory()
    except Exception as error:  # noqa: BLE001 - it is the user's code
        _blame(f"{word}() failed", error)
    module, inputs = _parts(torch, word, made)
    module.eval()
    args, named = ((), inputs) if isinstance(inputs, dict) else (inputs, None)
    try:
        with torch.no_grad():
            program = torch.onnx.export(module, args, kwargs=named, dynamo=True, verbose=False)
    except Exception as error:  # noqa: BLE001 - its errors share no base class
        _blame(f"torch cannot export {word}", error.__cause__ or error)
    _forget_machine(program.model)
    size = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    program.save(str(path), external_data=size > INLINE_BYTES)


def _found(word: str) -> Any:
    """What `package.module:factory` names."""
    place, _, name = word.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and f"{place}.".startswith(f"{error.name}."):
            raise FailedError(
                WRONG_WORDS, f"no module '{error.name}' here to import '{word}' from"
            ) from error
        _blame(f"importing {place} failed", error)
    except Exception as error:  # noqa: BLE001 - it is the user's code
        _blame(f"importing {place} failed", error)
    try:
        factory = reduce(getattr, name.split("."), module)
    except AttributeError as error:
        raise FailedError(WRONG_WORDS, f"module '{place}' has no '{name}'") from error
    if not callable(factory):
        raise FailedError(BAD_INPUT, f"{word} is no function")
    return factory


def _parts(torch: Any, word: str, made: Any) -> tuple[Any, Any]:
    """The module and its example inputs: a tensor, several in a tuple, or a dictionary by name."""
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (None, None)  # noqa: PLR2004
    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    if not isinstance(module, torch.nn.Module) or not isinstance(inputs, tuple | list | dict):
        raise FailedError(
            BAD_INPUT,
            f"{word}() gave {type(made).__name__}, and not (module, example_inputs): a torch.nn.Module, "
            "and a tensor, a tuple of tensors, or a dictionary of tensors by name",
        )
    return module, inputs if isinstance(inputs, dict) else tuple(inputs)


def _forget_machine(model: Any) -> None:
    """Take out what the exporter notes for debugging, paths of this machine among it."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for noted in (model, *graphs, *(node for graph in graphs for node in graph.all_nodes())):
        noted.metadata_props.clear()
        noted.doc_string = None
    for graph in graphs:
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph.all_nodes():
            for value in node.outputs:
                value.metadata_props.clear()


def _blame(what: str, error: BaseException) -> NoReturn:
    """Fail with the place in the user's code, and the error's own words."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename != __file__]
    spec = importlib.util.find_spec("torch")
    installed = str(Path(spec.origin).parents[1]) if spec and spec.origin else "site-packages"
    own = [each for each in frames if installed not in each.filename] or frames
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    first = (str(error).strip().splitlines() or [""])[0]
    raise FailedError(BAD_INPUT, f"{what}: {where}{type(error).__name__}: {first}") from error


if __name__ == "__main__":
    main()
