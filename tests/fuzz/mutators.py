"""Mutations that keep an input's form, so that more than its first bytes is tried.

Half of all inputs are what libFuzzer itself makes of the bytes; these are the others.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

Bytes = Callable[[bytes, int], bytes]
"""libFuzzer's own mutation of some bytes to at most so many."""
Mutator = Callable[[bytes, random.Random, Bytes], bytes]

WHOLE = (
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    127,
    255,
    1 << 16,
    1 << 31,
    -(1 << 31),
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
)
REAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, 1e300, float("nan"), float("inf"), float("-inf"))
TEXT = (
    "",
    "x",
    "y",
    "../x",
    "/etc/passwd",
    "a b",
    "run",
    "int",
    "\n",
    "*/",
    "\u65e5",
    "x" * 300,
    "$(id)",
    "..",
)
TOKENS = re.compile(rb'"[^"\n]*"|-?\d+(?:\.\d+)?|\w+|\s+|.', re.DOTALL)
BLOCK = 512
"""Bytes of a tar file's header, with its checksum at 148 (POSIX.1-1988, ustar)."""


def protobuf(data: bytes, generator: random.Random, mutate: Bytes) -> bytes:
    """A model with some of its fields changed, left out, doubled, or taken from elsewhere in it."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return mutate(data, len(data) + 16)
    for _ in range(generator.randrange(1, 4)):
        messages = list(_messages(model))
        _change(generator.choice(messages), messages, generator, mutate)
    return model.SerializeToString()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                yield from _messages(each)


def copied(message: Message) -> Message:
    """A message of its own: one that holds the place it is copied to crashes protobuf's library."""
    return type(message).FromString(message.SerializeToString())


def _change(message: Message, others: list[Message], generator: random.Random, mutate: Bytes) -> None:
    fields = list(message.DESCRIPTOR.fields)
    present = [field for field, _ in message.ListFields()]
    field = generator.choice(present if present and generator.random() < 0.8 else fields)
    like = [m for m in others if m.DESCRIPTOR is field.message_type]
    with suppress(ValueError, TypeError):  # what does not fit the field, as half a text
        if generator.random() < 0.1:
            message.ClearField(field.name)
        elif field.is_repeated:
            _repeated(getattr(message, field.name), field, like, generator, mutate)
        elif field.message_type is not None:
            if like:
                getattr(message, field.name).CopyFrom(copied(generator.choice(like)))
        else:
            setattr(message, field.name, _scalar(field, getattr(message, field.name), generator, mutate))


def _repeated(held: Any, field: Any, like: list[Message], generator: random.Random, mutate: Bytes) -> None:
    at = generator.randrange(len(held)) if held else 0
    if held and generator.random() < 0.3:
        del held[at]
    elif field.message_type is not None:
        if like:
            held.add().CopyFrom(copied(generator.choice(like)))
        if len(held) > 1 and generator.random() < 0.3:
            held[at].CopyFrom(copied(held[-1]))
    elif held and generator.random() < 0.7:
        held[at] = _scalar(field, held[at], generator, mutate)
    else:
        held.append(_scalar(field, held[at] if held else None, generator, mutate))


def _scalar(field: Any, old: Any, generator: random.Random, mutate: Bytes) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return mutate(old or b"", len(old or b"") + 16)
        return (
            generator.choice(TEXT)
            if generator.random() < 0.7
            else f"{old or ''}{generator.choice('xyz01')}"
        )
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return generator.choice(REAL)
    near = (old or 0) + generator.randrange(-2, 3)
    return near if generator.random() < 0.5 else generator.choice((*WHOLE, *range(24)))


def text(data: bytes, generator: random.Random, mutate: Bytes) -> bytes:
    """TOML or JSON with words, numbers or lines changed, left out, doubled or exchanged."""
    tokens = TOKENS.findall(data)
    if not tokens:
        return mutate(data, 64)
    for _ in range(generator.randrange(1, 4)):
        at, other = generator.randrange(len(tokens)), generator.randrange(len(tokens))
        what = generator.random()
        if what < 0.4:
            tokens[at] = _token(tokens[at], generator)
        elif what < 0.6:
            tokens[at] = tokens[other]
        elif what < 0.75:
            first, last = sorted((at, min(other, at + 40)))
            tokens[last:last] = tokens[first:last]
        elif what < 0.9 and len(tokens) > 1:
            first, last = sorted((at, min(other, at + 40)))
            del tokens[first : last + 1]
            tokens = tokens or [b" "]
        else:
            tokens[at] = mutate(tokens[at], len(tokens[at]) + 4)
    return b"".join(tokens)


def _token(token: bytes, generator: random.Random) -> bytes:
    if re.fullmatch(rb"-?\d+(\.\d+)?", token):
        return str(generator.choice((*WHOLE, 1.5, 1e300, 1 << 70))).encode()
    if token.startswith(b'"'):
        return b'"' + generator.choice(TEXT).encode("unicode_escape") + b'"'
    return generator.choice((b"null", b"true", b"[]", b"{}", b"nan", b"inf", b"[[kernel]]\n", b"0x1"))


def archive(data: bytes, generator: random.Random, mutate: Bytes) -> bytes:
    """A .tar.gz whose inner bytes are changed, with the sums that belong to them."""
    try:
        inner = bytearray(gzip.decompress(data))
    except (OSError, EOFError, ValueError, zlib.error):
        return mutate(data, len(data) + 16)
    headers = [
        at for at in range(0, len(inner) - BLOCK + 1, BLOCK) if inner[at + 257 : at + 262] == b"ustar"
    ]
    if headers and generator.random() < 0.8:
        at = generator.choice(headers)
        if generator.random() < 0.5:
            entry = tarfile.TarInfo(generator.choice((*TEXT, "demo/a", "demo/../b", "demo/lib.so")))
            entry.type = generator.choice((b"0", b"1", b"2", b"3", b"5", b"6", b"L", b"x", b"g", b"S"))
            entry.linkname = generator.choice(TEXT)
            entry.size = generator.choice((0, 1, 511, 512, 1 << 33))
            with suppress(ValueError):
                inner[at : at + BLOCK] = entry.tobuf(tarfile.USTAR_FORMAT, errors="replace")[:BLOCK]
        else:
            place = at + generator.randrange(BLOCK)
            inner[place] = generator.randrange(256)
            block = bytearray(inner[at : at + BLOCK])
            block[148:156] = b" " * 8
            inner[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    else:
        inner = bytearray(mutate(bytes(inner), len(inner) + BLOCK))
    return gzip.compress(bytes(inner), 0 if generator.random() < 0.9 else 9, mtime=0)


def arrays(data: bytes, generator: random.Random, mutate: Bytes) -> bytes:
    """A .npz whose members are changed, left out, renamed or doubled."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            members = [(name, packed.read(name)) for name in packed.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError):
        return mutate(data, len(data) + 16)
    if members:
        at = generator.randrange(len(members))
        name, content = members[at]
        what = generator.random()
        if what < 0.5:
            cut = min(len(content), 128)
            members[at] = (name, mutate(content[:cut], cut + 8) + content[cut:])
        elif what < 0.7:
            members[at] = (name, text(content, generator, mutate))
        elif what < 0.85:
            del members[at]
        else:
            members[at] = (generator.choice(TEXT) or "x", content)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, content in members:
            packed.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()
