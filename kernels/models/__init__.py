"""What the user brings: listings, read into a Program, and ONNX models, read into a Network.

The catalogue's listings are in `catalog/`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from kernels.errors import InputError, UsageError, did_you_mean
from kernels.models.listing import read_listing
from kernels.program import Network, Program

__all__ = [
    "CATALOG",
    "DEFAULT",
    "catalog",
    "files_of",
    "find_model",
    "find_models",
    "read_listing",
    "read_model",
]

CATALOG = Path(__file__).parent / "catalog"
DEFAULT = "resnet50"
LISTING, ONNX = ".toml", ".onnx"
"""Suffixes. The reader of ONNX is imported when it is needed, for the onnx package takes a while."""


def catalog() -> dict[str, Path]:
    """The listings that ship with kernfit, by name."""
    return {path.stem: path for path in sorted(CATALOG.glob("*.toml"))}


def find_models(words: str) -> tuple[Path, ...]:
    """Models from a name or file, several with commas between, or `all` of the catalogue."""
    if words.strip() == "all":
        return tuple(catalog().values())
    return tuple(dict.fromkeys(find_model(word.strip()) for word in words.split(",")))


def find_model(word: str) -> Path:
    """A file, or a name of the catalogue; UsageError if it is neither."""
    if word in catalog():
        return catalog()[word]
    path = Path(word)
    if path.is_file():
        return path
    raise UsageError(f"no model file '{word}', nor one in the catalogue{did_you_mean(word, catalog())}")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a model consists of: its own, and those beside it that hold its weights."""
    if path.suffix != ONNX:
        return (path,)
    reader = importlib.import_module("kernels.models.onnx_file")
    beside: tuple[Path, ...] = reader.weight_files(path)
    return (path, *beside)


def read_model(path: Path, dims: Mapping[str, int] | None = None) -> Program | Network:
    """The Program of a listing, or the Network of an ONNX model whose dynamic dimensions `dims` sizes.

    InputError says what is wrong and where.
    """
    if path.suffix == LISTING and not dims:
        return read_listing(path)
    if path.suffix == ONNX:
        network: Network = importlib.import_module("kernels.models.onnx_model").read_onnx(path, dims or {})
        return network
    if path.suffix == LISTING:
        raise InputError(f"{path}: a listing has no dynamic dimensions, so --dim says nothing of it")
    raise InputError(f"{path}: no reader for '{path.suffix}' files; known: {LISTING}, {ONNX}")
