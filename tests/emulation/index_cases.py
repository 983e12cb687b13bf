"""Small kernels of the operators with indices, at sizes that straddle vectors' edges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

TYPES = ("float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")


def index_cases() -> Iterator[tuple[str, str]]:
    """(name, TOML of the kernel without its name)."""
    yield from _gathers()


def entry(op: str, inputs: str, attributes: str, kind: str = "float32") -> str:
    """The TOML of a kernel."""
    return f'op = "{op}"\ninputs = {{ {inputs} }}\nattributes = {{ {attributes} }}\ntype = "{kind}"'


def _gathers() -> Iterator[tuple[str, str]]:
    tables = (
        # x, indices, axis
        ([5, 7], [5, 9], 1),
        ([6, 33], [3, 33], 0),
        ([2, 9, 3], [2, 4, 2], 1),
        ([3, 4, 5, 2], [1, 4, 7, 2], 2),
        ([17], [1], 0),
    )
    kinds = itertools.cycle(TYPES)
    indices = itertools.cycle(("int32", "int64"))
    for number, (x, chosen, axis) in enumerate(tables * 2):
        kind, index = next(kinds), next(indices)
        yield (
            f"gather_elements_{kind}_{number}",
            entry(
                "gather_elements",
                f"x = {x}, indices = {chosen}",
                f'axis = {axis}, index_type = "{index}"',
                kind,
            ),
        )
    tables_nd = (
        # x, indices, batch
        ([5, 7, 9], [4, 1], 0),
        ([5, 7, 33], [3, 2, 2], 0),
        ([3, 5, 7], [3, 4, 1], 1),
        ([2, 3, 5, 7], [2, 3, 2, 2], 2),
        ([6, 4], [2], 0),
    )
    for number, (x, chosen, batch) in enumerate(tables_nd * 2):
        kind, index = next(kinds), next(indices)
        yield (
            f"gather_nd_{kind}_{number}",
            entry(
                "gather_nd",
                f"x = {x}, indices = {chosen}",
                f'batch = {batch}, index_type = "{index}"',
                kind,
            ),
        )
