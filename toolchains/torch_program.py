"""Torch programs as models: `package.module:factory` becomes an ONNX file in `build/torch/`.

torch is optional, and is several gigabytes in some of its builds; so nothing here imports it,
and it may belong to another Python, as the one of the project that the network comes from.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import msgspec

from kernels import models
from kernels.errors import EngineError, InputError, KernfitError, MissingToolError, UsageError
from kernels.names import identifier
from toolchains.cache import ROOT
from toolchains.limits import limit
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.scratch import scratch

EXPORTER = ROOT / "kernels" / "models" / "torch_exporter.py"
PYTHON = "KERNFIT_TORCH_PYTHON"
"""The environment variable that names a Python with torch, where kernfit's own has none."""
EXPORTED = ROOT / "build" / "torch"
"""Seconds for a factory, which may read weights, and for the exporter, which takes some ten."""
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Why the exporter gave no model."""

    status: int
    line: str


def find_models(words: str, progress: Progress) -> tuple[Path, ...]:
    """The files of models, as `kernels.models.find_models` finds them; torch programs are exported."""
    if words.strip() == "all":
        return models.find_models(words)
    found = (find_model(word.strip(), progress) for word in words.split(","))
    return tuple(dict.fromkeys(found))


def find_model(word: str, progress: Progress) -> Path:
    """The file of one model."""
    if FACTORY.fullmatch(word) and not Path(word).exists():
        return export(word, progress)
    return models.find_model(word)


def export(word: str, progress: Progress, kept: Path = EXPORTED) -> Path:
    """The ONNX file of what the factory makes, in a folder of `kept` named after its content.

    The factory runs each time, for nobody else knows what its weights depend on; random ones are
    those of seed 0. MissingToolError where there is no torch, UsageError where there is no such
    factory, InputError where it or the export fails.
    """
    python = os.environ.get(PYTHON) or sys.executable
    progress.step(f"{word}: exporting by torch")
    kept.mkdir(parents=True, exist_ok=True)
    with scratch(kept.parent, f"export-{identifier(word)}") as folder:
        seconds = limit("export")
        try:
            ended = run(
                [python, str(EXPORTER), word, str(folder)], timeout=seconds, on_line=progress.detail
            )
        except FileNotFoundError as error:
            raise MissingToolError(f"{PYTHON}={python}: there is no such program") from error
        if ended.timed_out:
            raise InputError(f"{word}: no model after {seconds:.0f} s")
        if (folder / "failure.json").is_file():
            told = msgspec.json.decode((folder / "failure.json").read_bytes(), type=Told)
            raise _error(word, python, told)
        if ended.status != 0 or not (folder / "model.onnx").is_file():
            raise EngineError(f"exporting {word} ended with status {ended.status}: {ended.output}")
        return _keep(folder, kept, identifier(word.rpartition(":")[2]))


def _error(word: str, python: str, told: Told) -> KernfitError:
    if told.status == MissingToolError.status:
        return MissingToolError(
            f"{word} is a torch program, and {python} has no {told.line}; install it there with "
            f"`uv pip install torch onnxscript`, or name a Python that has both: {PYTHON}=.../bin/python"
        )
    return UsageError(told.line) if told.status == UsageError.status else InputError(told.line)


def _keep(folder: Path, kept: Path, name: str) -> Path:
    """Move what was exported to where its content says; what lies there already is the same."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        total.update(f"{path.name} {path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    place = kept / total.hexdigest()
    model = place / f"{name}.onnx"
    place.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir(), reverse=True):  # the model last, when its weights are there
        path.replace(model if path.name == "model.onnx" else place / path.name)
    return model
