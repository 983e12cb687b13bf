"""C identifiers from a model's own names, which may be any text."""

from __future__ import annotations

import re
from collections.abc import Collection

from kernels.errors import InputError

WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept
    const const_cast constexpr continue decltype default delete do double dynamic_cast else enum
    explicit export extern false float for friend goto if inline int long mutable namespace new
    noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast
    struct switch template this thread_local throw true try typedef typeid typename typeof union
    unsigned using virtual void volatile wchar_t while xor xor_eq linux unix"""
KEYWORDS = frozenset(WORDS.split())
"""Words that are no names in C or C++, and two that GNU's compilers define away."""
LONGEST = 200
"""Characters of an identifier; what is longer is cut."""


def identifier(name: str) -> str:
    """The name with all that C does not allow in an identifier replaced by underscores."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)[:LONGEST]
    if not re.match(r"[A-Za-z]", plain):
        plain = f"t{plain}" if plain.startswith("_") else f"t_{plain}"
    return f"{plain}_" if plain in KEYWORDS else plain


def distinct(names: Collection[str], what: str) -> dict[str, str]:
    """Each name's identifier; InputError where two names of `what` become the same."""
    found: dict[str, str] = {}
    for name in names:
        given = identifier(name)
        if given in found:
            raise InputError(f"{what} '{found[given]}' and '{name}' would both be '{given}' in C")
        found[given] = name
    return {name: given for given, name in found.items()}


def unique(name: str, taken: Collection[str]) -> str:
    """An identifier for the name, numbered if it is taken (in upper case) already."""
    plain = identifier(name)
    number, given = 1, plain
    while given.upper() in taken:
        number += 1
        given = f"{plain}_{number}"
    return given
