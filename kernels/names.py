"""C identifiers from the names of models, nodes and tensors, which may be any text."""

from __future__ import annotations

import re
from collections.abc import Iterable

RESERVED = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "bool",
        "true",
        "false",
        "nullptr",
        "alignas",
        "alignof",
        "constexpr",
        "typeof",
        "class",
        "delete",
        "new",
        "operator",
        "private",
        "protected",
        "public",
        "template",
        "this",
        "throw",
        "try",
        "catch",
        "virtual",
        "namespace",
        "using",
        "typename",
        "friend",
        "explicit",
        "export",
        "mutable",
        "and",
        "or",
        "not",
        "xor",
        "run",
    ]
)
"""Words of C and C++, and `run`, which is the whole network."""
LONGEST = 48


def identifier(name: str) -> str:
    """The name as a C identifier: other characters become underscores."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].strip("_") or "x"
    return f"n{word}" if word[0].isdigit() else word


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """An identifier for each name, none twice, whatever the case of its letters."""
    taken = set(RESERVED)
    numbers: dict[str, int] = {}
    found: dict[str, str] = {}
    for name in names:
        base = word = identifier(name)
        while word.lower() in taken:
            numbers[base] = numbers.get(base, 1) + 1
            word = f"{base}_{numbers[base]}"
        taken.add(word.lower())
        found[name] = word
    return found
