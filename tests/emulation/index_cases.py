"""Small kernels of the operators with indices, at sizes that straddle vectors' edges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

TYPES = ("float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")


def index_cases() -> Iterator[tuple[str, str]]:
    """(name, TOML of the kernel without its name)."""
    yield from _gathers()
    yield from _scatters()
    yield from _accumulations()
    yield from _tops()
    yield from _grids()


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


def _scatters() -> Iterator[tuple[str, str]]:
    elements = (
        # x, indices, axis
        ([5, 7], [5, 9], 1),
        ([6, 33], [11, 31], 0),
        ([2, 9, 3], [1, 14, 3], 1),
    )
    kinds = itertools.cycle(TYPES[:-1])
    indices = itertools.cycle(("int64", "int32"))
    for number, reduction in enumerate(("none", "add", "mul", "max", "min") * 2):
        (x, chosen, axis), kind, index = elements[number % 3], next(kinds), next(indices)
        yield (
            f"scatter_elements_{reduction}_{kind}_{number}",
            entry(
                "scatter_elements",
                f"x = {x}, indices = {chosen}, updates = {chosen}",
                f'axis = {axis}, reduction = "{reduction}", index_type = "{index}"',
                kind,
            ),
        )
    parts = (
        # x, indices, updates
        ([7, 33], [9, 1], [9, 33]),
        ([4, 5, 9], [3, 5, 2], [3, 5, 9]),
        ([6, 4], [17, 2], [17]),
    )
    for number, reduction in enumerate(("none", "add", "mul", "max", "min") * 2):
        (x, chosen, updates), kind, index = parts[number % 3], next(kinds), next(indices)
        yield (
            f"scatter_nd_{reduction}_{kind}_{number}",
            entry(
                "scatter_nd",
                f"x = {x}, indices = {chosen}, updates = {updates}",
                f'reduction = "{reduction}", index_type = "{index}"',
                kind,
            ),
        )
    yield (
        "scatter_nd_none_bool",
        entry("scatter_nd", "x = [5, 9], indices = [3, 1], updates = [3, 9]", 'reduction = "none"', "bool"),
    )


def _accumulations() -> Iterator[tuple[str, str]]:
    shapes = (([3, 5, 9], 1), ([2, 33], -1), ([7, 35], 0))
    ways = itertools.product(("false", "true"), repeat=2)
    for number, (kind, (exclusive, reverse)) in enumerate(zip(TYPES[:-1], itertools.cycle(ways))):
        for name in ("cumulative_sum", "cumulative_product"):
            x, axis = shapes[number % 3]
            words = f"axis = {axis}, exclusive = {exclusive}, reverse = {reverse}"
            yield f"{name}_{kind}", entry(name, f"x = {x}", words, kind)


def _tops() -> Iterator[tuple[str, str]]:
    shapes = (([3, 29], 1, 5), ([17, 5], 0, 17), ([2, 33, 3], 1, 32), ([9], 0, 1))
    for number, kind in enumerate((*TYPES[:-1], "float32")):
        x, axis, k = shapes[number % 4]
        largest = ("true", "false")[number // 4]
        yield (
            f"top_k_{kind}_{number}",
            entry("top_k", f"x = {x}", f"axis = {axis}, k = {k}, largest = {largest}", kind),
        )


def _grids() -> Iterator[tuple[str, str]]:
    shapes = (
        # x, grid
        ([1, 5, 7, 9], [1, 2, 4, 5]),
        ([2, 6, 3, 1], [2, 2, 3, 7]),
        ([1, 4, 4, 33], [1, 2, 1, 5]),
    )
    ways = itertools.product(
        ("nearest", "linear", "cubic"), ("zeros", "border", "reflection"), ("false", "true")
    )
    for number, (mode, padding, corners) in enumerate(ways):
        x, grid = shapes[number % 3]
        words = f'mode = "{mode}", padding = "{padding}", align_corners = {corners}'
        yield (
            f"grid_sample_{mode}_{padding}_{number}",
            entry("grid_sample", f"x = {x}, grid = {grid}", words),
        )
    words = 'mode = "linear", padding = "reflection"'
    yield (
        "grid_sample_volume",
        entry("grid_sample", "x = [1, 3, 4, 5, 7], grid = [1, 3, 2, 3, 2]", words),
    )
    yield "grid_sample_row", entry("grid_sample", "x = [1, 9, 4], grid = [1, 1, 13]", 'mode = "cubic"')
