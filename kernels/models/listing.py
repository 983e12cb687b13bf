"""Listings: TOML files that name operators and shapes directly."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from kernels.errors import InputError, did_you_mean
from kernels.operators import find_family, fuse_words
from kernels.operators.base import Definition, ElementWise, Entry
from kernels.program import Attribute, Operator, Program, Role, Tensor

LARGEST_FILE = 1 << 20
LARGEST_TENSOR = (1 << 31) - 1
"""In bytes: what a pointer difference of a 32-bit target can span."""
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
C_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    alignas alignof auto bool break case char const constexpr continue default do double else
    enum extern false float for goto if inline int long nullptr register restrict return run
    short signed sizeof static static_assert struct switch thread_local true typedef typeof
    union unsigned void volatile while
""",
    )
)
"""Names that no kernel can have: C23's keywords (ISO/IEC 9899:2024, 6.4.1), and `run`."""


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a listing."""

    name: str
    source: str
    kernel: list[dict[str, Any]]


def read_listing(path: Path) -> Program:
    """The Program of a listing; InputError names the file and the line of what is wrong."""
    text = _text(path)
    try:
        listing = msgspec.convert(tomllib.loads(text), Listing)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: {error}") from error
    except msgspec.ValidationError as error:
        raise _located(path, text, None, str(error), set(Listing.__struct_fields__)) from error
    if not IDENTIFIER.fullmatch(listing.name) or listing.name in C_KEYWORDS:
        raise _located(path, text, None, f"name = '{listing.name}' is not a C identifier - at `$.name`")
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
            raise _located(path, text, number, str(error), _known_keys(raw)) from error
        except InputError as error:
            raise _located(path, text, number, str(error)) from error
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
        raise InputError('a kernel needs an operator, such as op = "gemm"')
    family = find_family(op)
    entry = msgspec.convert(raw, family.entry)
    if not IDENTIFIER.fullmatch(entry.name) or entry.name in C_KEYWORDS:
        raise InputError(f"name = '{entry.name}' is not a C identifier that a kernel can have")
    if entry.name in seen:
        raise InputError(f"name = '{entry.name}' is taken by an earlier kernel")
    seen.add(entry.name)
    if entry.count < 1:
        raise InputError(f"count = {entry.count} must be positive")
    definition = family.define(entry)
    for tensor in (*definition.operands, definition.output):
        if tensor.bytes > LARGEST_TENSOR:
            raise InputError(
                f"tensor {tensor.name} of {tensor.bytes} bytes is beyond a 32-bit address space "
                f"(at most {LARGEST_TENSOR})"
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

    def operator(number: int, kind: str, attributes: dict[str, Attribute], inputs: tuple[str, ...]) -> str:
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
                group=entry.name,
                count=entry.count,
            )
        )
        return result

    inputs = tuple(tensor(each.name, each, each.role, each.shape) for each in definition.operands)
    value = operator(0, entry.op, definition.attributes, inputs)
    for number, (word, family) in enumerate(zip(entry.fuse, steps, strict=True), 1):
        second: tuple[str, ...] = ()
        if word == "bias":
            second = (tensor("bias", output, Role.CONSTANT, output.shape[-1:]),)
        elif word == "add":
            second = (tensor("residual", output, Role.INPUT, output.shape),)
        value = operator(number, family.kind, dict(family.words[word]), (value, *second))


def _fused(word: str, entry: Entry) -> ElementWise:
    if word not in fuse_words():
        raise InputError(f"fuse = '{word}' is unknown{did_you_mean(word, fuse_words())}")
    if entry.fuse.count(word) > 1:
        raise InputError(f"fuse names '{word}' twice")
    return fuse_words()[word]


def _known_keys(raw: dict[str, Any]) -> set[str]:
    entry = find_family(raw["op"]).entry
    keys: set[str] = set()

    def walk(kind: Any) -> None:
        for field in msgspec.structs.fields(kind):
            keys.add(field.name)
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                walk(field.type)

    walk(entry)
    return keys


def _located(
    path: Path, text: str, number: int | None, message: str, known: set[str] | None = None
) -> InputError:
    """The message with file and line: of the key that it names, in that kernel's table."""
    unknown = re.search(r"unknown field `(\w+)`", message)
    if unknown and known:
        message = f"unknown key '{unknown[1]}'{did_you_mean(unknown[1], known - {unknown[1]})}"
        keys = [unknown[1]]
    else:
        place = re.search(r" - at `\$\.?([^`]*)`", message)
        keys = re.findall(r"[A-Za-z_]\w*", place[1])[::-1] if place else []
        message = re.sub(r" - at `[^`]*`", "", message)
        if keys:
            message = f"{'.'.join(reversed(keys))}: {message}"
        keys += re.findall(r"(\w+)(?: = |: )", message) + re.findall(r"\.(\w+)", message)
    lines = text.splitlines()
    starts = [n for n, line in enumerate(lines) if re.match(r"\s*\[\[\s*kernel\s*\]\]", line)]
    first, last = 0, len(lines)
    if number is not None and number < len(starts):
        first = starts[number]
        last = starts[number + 1] if number + 1 < len(starts) else len(lines)
    for key in keys:
        for line in range(first, last):
            if re.search(rf"(^|[{{,\s]){re.escape(key)}\s*=", lines[line]):
                return InputError(f"{path}:{line + 1}: {message}")
    return InputError(f"{path}:{first + 1}: {message}")
