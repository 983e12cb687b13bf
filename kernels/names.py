"""C identifiers from the names of models, nodes and tensors, which may be any text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

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
RESERVED = KEYWORDS | {"run", "weights", "inputs", "outputs"}
"""Those, and what follows the library's name in symbols and types of the whole network."""
LONGEST = 48


def identifier(name: str, longest: int = LONGEST) -> str:
    """The name as a C identifier: other characters become underscores."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:longest].strip("_") or "x"
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


def members(names: Collection[str], what: str) -> dict[str, str]:
    """Each name's identifier in a structure, where a number that was made up would only confuse.

    InputError where two of the names of `what` become the same.
    """
    found: dict[str, str] = {}
    for name in names:
        word = identifier(name, len(name))
        word = f"{word}_" if word in KEYWORDS else word
        if word in found:
            raise InputError(f"{what} '{found[word]}' and '{name}' would both be '{word}' in C")
        found[word] = name
    return {name: word for word, name in found.items()}
