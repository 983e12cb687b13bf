"""What the user brings, read into a Program: listings now; the catalogue's are in `catalog/`."""

from __future__ import annotations

from pathlib import Path

from kernels.errors import InputError, UsageError, did_you_mean
from kernels.models.listing import read_listing
from kernels.program import Program

CATALOG = Path(__file__).parent / "catalog"
DEFAULT = "resnet50"
READERS = {".toml": read_listing}


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


def read_model(path: Path) -> Program:
    """The Program of a model file; InputError says what is wrong and where."""
    reader = READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: no reader for '{path.suffix}' files; known: {', '.join(READERS)}")
    return reader(path)
