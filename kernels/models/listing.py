"""Listings: TOML files that name operators and shapes directly."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from kernels.errors import InputError, did_you_mean
from kernels.operators import families, find_family, fuse_words
from kernels.operators.base import Definition, ElementWise, Entry
from kernels.program import Attribute, Operator, Program, Role, Tensor

LARGEST_FILE = 1 << 20
LARGEST_KERNEL = (1 << 31) - 1
"""Bytes of all tensors of a kernel: what a 32-bit target can address with a sign to spare."""
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
RESERVED = frozenset({"run"})
"""Names that no kernel can have: `<library>_run` is a whole network."""


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a listing."""

    name: str
    source: str
    kernel: list[dict[str, Any]] = []


def read_listing(path: Path) -> Program:
    """The Program of a listing; InputError names the file and the line of what is wrong."""
    text = _text(path)
    try:
        listing = msgspec.convert(tomllib.loads(text), Listing)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: {error}") from error
    except msgspec.ValidationError as error:
        raise _located(path, text, None, error, Listing) from error
    if not IDENTIFIER.fullmatch(listing.name):
        raise _at(path, text, None, "name", f"name = '{listing.name}' is not a C identifier")
    if not listing.kernel:
        raise InputError(f"{path}: a listing needs at least one [[kernel]]")
    tensors: list[Tensor] = []
    operators: list[Operator] = []
    seen: set[str] = set()
    for number, raw in enumerate(listing.kernel):
        try:
            entry, definition = _entry(raw, seen)
            _append(entry, definition, tensors, operators)
        except msgspec.ValidationError as error:
            raise _located(path, text, number, error, find_family(raw["op"]).entry) from error
        except InputError as error:
            raise _at(path, text, number, error.key, str(error)) from error
    return Program(
        name=listing.name,
        form="listing",
        source=listing.source,
        tensors=tuple(tensors),
        operators=tuple(operators),
    )


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path}: larger than {LARGEST_FILE >> 20} MiB, so it is no listing")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not a text file in UTF-8") from error


def _entry(raw: dict[str, Any], seen: set[str]) -> tuple[Entry, Definition]:
    op = raw.get("op")
    if not isinstance(op, str):
        raise InputError('a kernel needs an operator, such as op = "gemm"', key="op")
    if op not in families():
        raise InputError(f"unknown operator '{op}'{did_you_mean(op, families())}", key="op")
    family = families()[op]
    entry = msgspec.convert(raw, family.entry)
    if not IDENTIFIER.fullmatch(entry.name):
        raise InputError(f"name = '{entry.name}' is not a C identifier", key="name")
    if entry.name in RESERVED:
        raise InputError(f"name = '{entry.name}' is reserved", key="name")
    if entry.name.upper() in seen:
        raise InputError(
            f"name = '{entry.name}' is taken by an earlier kernel, but for upper and lower case", key="name"
        )
    seen.add(entry.name.upper())
    if entry.count < 1:
        raise InputError(f"count = {entry.count} must be positive", key="count")
    definition = family.typed(family.define(entry), entry.type)
    if entry.fuse and not family.fuses:
        raise InputError(f"nothing can be fused into {entry.op}", key="fuse")
    tensors = (*definition.operands, definition.output)
    total = sum(tensor.bytes for tensor in tensors)
    if total > LARGEST_KERNEL:
        largest = max(tensors, key=lambda tensor: tensor.bytes)
        raise InputError(
            f"{total} bytes of tensors, {largest.bytes} of them in {largest.name}, are beyond a 32-bit "
            f"address space (at most {LARGEST_KERNEL})"
        )
    return entry, definition


def _append(entry: Entry, definition: Definition, tensors: list[Tensor], operators: list[Operator]) -> None:
    """Append the entry as a chain of operators of one group."""
    output = definition.output
    steps = [_fused(word, entry) for word in entry.fuse]

    def tensor(name: str, like: Tensor, role: Role, shape: tuple[int, ...]) -> str:
        full = f"{entry.name}.{name}"
        tensors.append(msgspec.structs.replace(like, name=full, role=role, shape=shape))
        return full

    def operator(
        number: int,
        kind: str,
        attributes: dict[str, Attribute],
        inputs: tuple[str, ...],
        operands: tuple[str, ...],
    ) -> str:
        last = number == len(steps)
        name = output.name if last else f"{output.name}.{number}"
        result = tensor(name, output, Role.OUTPUT if last else Role.INTERNAL, output.shape)
        operators.append(
            Operator(
                name=f"{entry.name}.{number}" if number else entry.name,
                kind=kind,
                attributes=attributes,
                inputs=inputs,
                outputs=(result,),
                operands=operands,
                group=entry.name,
                count=entry.count,
            )
        )
        return result

    inputs = tuple(tensor(each.name, each, each.role, each.shape) for each in definition.operands)
    names = (*(each.name for each in definition.operands), output.name)
    value = operator(0, entry.op, definition.attributes, inputs, names)
    for number, (word, family) in enumerate(zip(entry.fuse, steps, strict=True), 1):
        second: tuple[str, ...] = ()
        if word == "bias":
            second = (tensor("bias", output, Role.CONSTANT, output.shape[-1:]),)
        elif word == "add":
            second = (tensor("residual", output, Role.INPUT, output.shape),)
        names = ("a", "b", "y") if second else ("x", "y")
        value = operator(number, family.kind, dict(family.words[word]), (value, *second), names)


def _fused(word: str, entry: Entry) -> ElementWise:
    if word not in fuse_words():
        raise InputError(f"fuse = '{word}' is unknown{did_you_mean(word, fuse_words())}", key="fuse")
    if entry.fuse.count(word) > 1:
        raise InputError(f"fuse names '{word}' twice", key="fuse")
    return fuse_words()[word]


def _located(
    path: Path, text: str, number: int | None, error: msgspec.ValidationError, kind: type[msgspec.Struct]
) -> InputError:
    """What msgspec found wrong in the listing or in a kernel of it, with its line."""
    message, _, place = str(error).partition(" - at `$")
    key = re.sub(r"\[\d*\]", "", place).strip(".`")
    unknown = re.search(r"unknown field `(\w+)`", message)
    if unknown:
        known = _keys(kind) - {unknown[1]}
        return _at(
            path, text, number, unknown[1], f"unknown key '{unknown[1]}'{did_you_mean(unknown[1], known)}"
        )
    return _at(path, text, number, key, f"{key}: {message}" if key else message)


def _keys(kind: type[msgspec.Struct]) -> set[str]:
    """Every key that a type knows, those of its parts too."""
    keys: set[str] = set()
    for field in msgspec.structs.fields(kind):
        keys.add(field.name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            keys |= _keys(field.type)
    return keys


def _at(path: Path, text: str, number: int | None, key: str, message: str) -> InputError:
    """The message with file and line: of the key, or else of the kernel's first line."""
    lines = text.splitlines()
    starts = [n for n, line in enumerate(lines) if re.match(r"\s*\[\[\s*kernel\s*\]\]", line)]
    first, last = 0, starts[0] if starts else len(lines)
    if number is not None and number < len(starts):
        first, last = starts[number], [*starts, len(lines)][number + 1]
    for part in reversed(key.split(".")):
        for line in range(first, last):
            if part and re.search(rf"(^|[{{,\s]){re.escape(part)}\s*=", lines[line]):
                return InputError(f"{path}:{line + 1}: {message}", key=key)
    return InputError(f"{path}:{first + 1}: {message}", key=key)
