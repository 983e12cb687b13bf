"""Small kernels on other element types than float32, and what makes one type of another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

TYPES = ("float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")
"""All but float32."""
REALS, WHOLE = TYPES[:2], TYPES[2:6]


def typed_cases() -> Iterator[tuple[str, str]]:
    """(label, TOML of the kernel without its name)."""
    yield from _moved_types()
    yield from _casts()
    yield from _typed_functions()
    yield from _typed_pairs()
    yield from _typed_folds()


def _moved_types() -> Iterator[tuple[str, str]]:
    moves = (
        ("transpose", "inputs = { x = [3, 4, 9] }\nattributes = { permute = [2, 0, 1] }"),
        (
            "slice",
            "inputs = { x = [5, 33] }\nattributes = { starts = [1, 2], ends = [5, 33], steps = [2, 1] }",
        ),
        ("pad", "inputs = { x = [3, 17] }\nattributes = { before = [1, 0], after = [0, 2], value = 1.0 }"),
        ("concat", "inputs = [[2, 7], [2, 9]]"),
        ("gather", "inputs = { table = [7, 11], indices = [5] }"),
        ("reshape", "inputs = { x = [3, 35] }\nattributes = { shape = [5, 21] }"),
        ("where", "inputs = { condition = [3, 1], a = [3, 13], b = [13] }"),
    )
    yield "where", f'op = "where"\n{moves[-1][1]}'
    for number, kind in enumerate(TYPES):
        for name, body in moves[number % 3 :: 3]:
            yield f"{name}_{kind}", f'op = "{name}"\n{body}\ntype = "{kind}"'


def _casts() -> Iterator[tuple[str, str]]:
    """Every pair of types."""
    for x, y in itertools.permutations(("float32", *TYPES), 2):
        if (x, y) not in (("int32", "float32"), ("int64", "float32")):
            words = f'x_type = "{x}", y_type = "{y}"'
            yield f"cast_{x}_{y}", f'op = "cast"\ninputs = {{ x = [119] }}\nattributes = {{ {words} }}'


def _typed_functions() -> Iterator[tuple[str, str]]:
    for kind in REALS:
        for name in ("relu", "gelu", "sqrt", "is_nan"):
            yield f"{name}_{kind}", f'op = "{name}"\ninputs = {{ x = [3, 111] }}\ntype = "{kind}"'
    for kind in WHOLE:
        for name in ("relu", "negative", "absolute", "sign", "bitwise_not"):
            yield f"{name}_{kind}", f'op = "{name}"\ninputs = {{ x = [37] }}\ntype = "{kind}"'
    for name in ("sign", "is_nan"):
        yield name, f'op = "{name}"\ninputs = {{ x = [111] }}'
    yield "logical_not", 'op = "logical_not"\ninputs = { x = [21] }\ntype = "bool"'


def _typed_pairs() -> Iterator[tuple[str, str]]:
    shapes = "inputs = { a = [3, 19], b = [19] }"
    for kind in REALS:
        for name in ("add", "mul", "div", "maximum", "pow"):
            fuse = '\nfuse = ["add"]' if name == "add" else ""
            yield f"{name}_{kind}", f'op = "{name}"\n{shapes}\ntype = "{kind}"{fuse}'
    for kind in WHOLE:
        for name in ("add", "sub", "mul", "div", "maximum", "minimum", "bitwise_and", "mod"):
            yield f"{name}_{kind}", f'op = "{name}"\n{shapes}\ntype = "{kind}"'
        yield (
            f"mod_truncated_{kind}",
            f'op = "mod"\n{shapes}\nattributes = {{ truncated = true }}\ntype = "{kind}"',
        )
    for name, kind in itertools.product(("shift_left", "shift_right"), ("uint8", "int32", "int64")):
        yield f"{name}_{kind}", f'op = "{name}"\n{shapes}\ntype = "{kind}"'
    for name in ("bitwise_or", "bitwise_xor", "equal"):
        yield f"{name}_bool", f'op = "{name}"\n{shapes}\ntype = "bool"'
    names = ("equal", "less", "less_or_equal", "greater", "greater_or_equal")
    for name, kind in zip(names, itertools.cycle(("float32", *TYPES[:-1]))):
        yield f"{name}_{kind}", f'op = "{name}"\n{shapes}\ntype = "{kind}"'
        yield name, f'op = "{name}"\ninputs = {{ a = [24, 1], b = [24] }}'


def _typed_folds() -> Iterator[tuple[str, str]]:
    for kind in (*REALS, "int32", "int64"):
        for name in ("sum", "mean", "max", "prod"):
            words = "axes = [1]" if name == "max" else "axes = [-1]"
            shape = f"inputs = {{ x = [3, 5, 9] }}\nattributes = {{ {words} }}"
            yield f"reduce_{name}_{kind}", f'op = "reduce_{name}"\n{shape}\ntype = "{kind}"'
    for kind in ("int8", "uint8"):
        shape = "inputs = { x = [4, 37] }\nattributes = { axes = [1] }"
        yield f"reduce_min_{kind}", f'op = "reduce_min"\n{shape}\ntype = "{kind}"'
    for number, kind in enumerate(("float32", *TYPES[:-1])):
        name = ("arg_max", "arg_min")[number % 2]
        for axis, last in ((-1, "false"), (1, "true")):
            words = f"axis = {axis}, last = {last}"
            yield (
                f"{name}_{kind}",
                f'op = "{name}"\ninputs = {{ x = [2, 7, 9] }}\nattributes = {{ {words} }}\ntype = "{kind}"',
            )
