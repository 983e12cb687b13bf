"""Small kernels of every operator, at sizes that straddle vector and tile edges."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from tests.emulation.index_cases import index_cases
from tests.emulation.typed_cases import typed_cases


def listing() -> str:
    """A listing of all cases."""
    parts = ['name = "edges"\nsource = "sizes around vector and tile edges"\n']
    for number, (label, body) in enumerate(cases()):
        parts.append(f'[[kernel]]\nname = "{label}_{number}"\n{body}\n')
    parts += [f'[[kernel]]\nname = "{name}"\n{body}\n' for name, body in index_cases()]
    return "\n".join(parts)


def cases() -> Iterator[tuple[str, str]]:
    """(label, TOML of the kernel without its name)."""
    yield from _gemms()
    yield from _convolutions()
    yield from _windows()
    yield from _maps()
    yield from _functions()
    yield from _rows()
    yield from _movements()
    yield from _wider_convolutions()
    yield from _algebra()
    yield from typed_cases()
    yield from _bends()


def _gemms() -> Iterator[tuple[str, str]]:
    sizes = [(1, 1, 1), (7, 8, 9), (8, 31, 32), (9, 33, 7), (31, 127, 33), (1, 129, 128), (129, 1, 31)]
    fuses = itertools.cycle([[], ["bias"], ["bias", "relu"], ["bias", "add", "relu6"], ["add"]])
    for (m, n, k), fuse in zip(sizes, fuses, strict=False):
        yield "gemm", f'op = "gemm"\nm = {m}\nn = {n}\nk = {k}\nfuse = {json.dumps(fuse)}'
    for transpose in ("nn", "nt", "tn", "tt"):
        for m, n, k in ((9, 33, 17), (13, 7, 8)):
            yield (
                f"gemm_{transpose}",
                (f'op = "gemm"\nm = {m}\nn = {n}\nk = {k}\ntranspose = "{transpose}"\nweights = []'),
            )
    yield "gemm_packed_nt", 'op = "gemm"\nm = 5\nn = 37\nk = 11\ntranspose = "nt"\nfuse = ["bias"]'
    yield "gemm_packed_tn", 'op = "gemm"\nm = 37\nn = 9\nk = 6\ntranspose = "tn"\nfuse = ["relu"]'


def _convolutions() -> Iterator[tuple[str, str]]:
    table = [
        # x, filters, kernel, stride, padding
        ((1, 7, 7, 8), 8, (1, 1), (1, 1), (0, 0, 0, 0)),
        ((2, 5, 9, 3), 33, (1, 1), (2, 2), (0, 0, 0, 0)),
        ((1, 9, 31, 3), 31, (3, 3), (1, 1), (1, 1, 1, 1)),
        ((1, 8, 33, 5), 9, (3, 3), (2, 2), (0, 0, 1, 1)),
        ((1, 17, 19, 3), 17, (7, 7), (2, 2), (3, 3, 3, 3)),
        ((1, 4, 3, 7), 1, (5, 5), (1, 1), (2, 2, 2, 2)),
        ((2, 6, 5, 4), 20, (2, 3), (1, 2), (1, 0, 0, 2)),
        ((1, 1, 129, 1), 4, (1, 9), (1, 1), (0, 4, 0, 4)),
        ((1, 3, 3, 127), 7, (3, 3), (1, 1), (0, 0, 0, 0)),
    ]
    fuses = itertools.cycle([["bias", "relu"], [], ["bias", "add", "relu"], ["bias"], ["relu6"]])
    for (x, filters, kernel, stride, padding), fuse in zip(table, fuses, strict=False):
        yield (
            "conv",
            (
                f'op = "conv2d"\ninputs = {{ x = {list(x)} }}\nattributes = {{ filters = {filters}, '
                f"kernel = {list(kernel)}, stride = {list(stride)}, padding = {list(padding)} }}\n"
                f"fuse = {json.dumps(fuse)}"
            ),
        )


def _windows() -> Iterator[tuple[str, str]]:
    table = [
        ((1, 7, 7, 8), (3, 3), (1, 1), (1, 1, 1, 1)),
        ((2, 9, 8, 33), (3, 3), (2, 2), (0, 0, 1, 1)),
        ((1, 5, 31, 7), (2, 2), (2, 2), (0, 0, 0, 0)),
        ((1, 13, 12, 31), (5, 4), (1, 2), (2, 1, 2, 3)),
        ((1, 4, 33, 1), (3, 3), (1, 1), (1, 1, 1, 1)),
    ]
    for x, kernel, stride, padding in table:
        shape = f"inputs = {{ x = {list(x)} }}\n"
        window = f"kernel = {list(kernel)}, stride = {list(stride)}, padding = {list(padding)}"
        yield (
            "depthwise",
            (f'op = "depthwise_conv2d"\n{shape}attributes = {{ {window} }}\nfuse = ["bias", "relu6"]'),
        )
        yield "maxpool", f'op = "max_pool"\n{shape}attributes = {{ {window} }}'
        yield "avgpool", f'op = "average_pool"\n{shape}attributes = {{ {window} }}'
        yield (
            "avgpool_pad",
            (
                f'op = "average_pool"\n{shape}attributes = {{ {window}, count_include_pad = true }}\n'
                'fuse = ["relu"]'
            ),
        )
    for x in ((1, 7, 7, 33), (2, 3, 5, 8), (1, 31, 9, 1)):
        yield "global", f'op = "global_average_pool"\ninputs = {{ x = {list(x)} }}'


def _maps() -> Iterator[tuple[str, str]]:
    for size in (1, 7, 8, 31, 33, 127, 129):
        yield "relu", f'op = "relu"\ninputs = {{ x = [{size}] }}'
        yield "softmax", f'op = "softmax"\ninputs = {{ x = [3, {size}] }}'
        yield "add", f'op = "add"\ninputs = {{ a = [2, {size}], b = [2, {size}] }}\nfuse = ["relu"]'
        yield "add_row", f'op = "add"\ninputs = {{ a = [3, {size}], b = [{size}] }}'
    yield "clip", ('op = "clip"\ninputs = { x = [5, 33] }\nattributes = { minimum = -1.5, maximum = 2.25 }')


UNARY = (
    "exp",
    "log",
    "tanh",
    "erf",
    "sigmoid",
    "gelu",
    "gelu_tanh",
    "silu",
    "hard_sigmoid",
    "hard_swish",
    "elu",
    "sqrt",
    "negative",
    "absolute",
    "floor",
    "ceil",
    "round",
    "leaky_relu",
    "softsign",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
)


def _functions() -> Iterator[tuple[str, str]]:
    for name in UNARY:
        yield name, f'op = "{name}"\ninputs = {{ x = [4111] }}'
    for name in ("tanh", "erf", "sigmoid", "gelu", "silu", "hard_swish", "elu"):
        yield f"gemm_{name}", f'op = "gemm"\nm = 3\nn = 13\nk = 5\nfuse = ["bias", "{name}"]'
    shapes = [
        ([3, 5, 7], [3, 5, 7]),
        ([2, 3, 33], [33]),
        ([4, 1, 9], [5, 1]),
        ([6, 5], [6, 1]),
        ([1], [2, 9]),
    ]
    names = ("add", "sub", "mul", "div", "maximum", "minimum", "pow")
    for number, (a, b) in enumerate(shapes):
        for name in names[number % 2 :: 2] if number else names:
            yield name, f'op = "{name}"\ninputs = {{ a = {a}, b = {b} }}'


def _rows() -> Iterator[tuple[str, str]]:
    for shape, axis in (([3, 5, 7], 1), ([2, 9, 33], 0), ([4, 31], -1), ([2, 3, 4, 1], 1)):
        for name in ("softmax", "log_softmax"):
            yield name, f'op = "{name}"\ninputs = {{ x = {shape} }}\nattributes = {{ axis = {axis} }}'
    for number, name in enumerate(("sum", "mean", "max", "min", "prod", "l2")):
        tables = (
            ([5, 7, 9], [-1]),
            ([3, 4, 33], [1]),
            ([2, 31, 8], [0, 2]),
            ([6, 5], [0, 1]),
            ([2, 3, 4, 5], [1, 2]),
        )
        for shape, axes in tables[number % 2 :]:
            keep = "true" if number % 2 else "false"
            yield (
                f"reduce_{name}",
                (
                    f'op = "reduce_{name}"\ninputs = {{ x = {shape} }}\nattributes = {{ axes = {axes}, keepdims = {keep} }}'
                ),
            )
    for columns in (1, 7, 33, 129):
        shape = f"inputs = {{ x = [3, {columns}] }}"
        yield "layer_norm", f'op = "layer_norm"\n{shape}'
        yield "rms_norm", f'op = "rms_norm"\n{shape}\nattributes = {{ epsilon = 1e-3 }}'
        yield "batch_norm", f'op = "batch_norm"\n{shape}\nfuse = ["relu"]'
    for columns, size, beta in ((1, 5, 0.75), (7, 5, 0.75), (33, 4, 0.6), (129, 5, 0.75), (64, 1, 1.0)):
        yield (
            "lrn",
            (
                f'op = "lrn"\ninputs = {{ x = [3, {columns}] }}\n'
                f"attributes = {{ size = {size}, alpha = 0.01, beta = {beta}, bias = 2.0 }}"
            ),
        )
    for shape, groups in (([2, 3, 5, 12], 4), ([1, 4, 4, 9], 9), ([2, 6, 33], 1), ([1, 2, 2, 34], 2)):
        yield (
            "group_norm",
            f'op = "group_norm"\ninputs = {{ x = {shape} }}\nattributes = {{ groups = {groups} }}',
        )


def _movements() -> Iterator[tuple[str, str]]:
    for shape, permute in (([2, 7, 5, 3], [0, 3, 1, 2]), ([9, 33], [1, 0]), ([2, 3, 4, 8], [0, 2, 1, 3])):
        yield (
            "transpose",
            (f'op = "transpose"\ninputs = {{ x = {shape} }}\nattributes = {{ permute = {permute} }}'),
        )
    for shape, starts, ends, steps in (
        ([7, 33], [1, 0], [6, 33], [1, 1]),
        ([5, 9, 31], [0, 2, 3], [5, 9, 30], [2, 3, 1]),
        ([129], [7], [127], [2]),
    ):
        yield (
            "slice",
            (
                f'op = "slice"\ninputs = {{ x = {shape} }}\n'
                f"attributes = {{ starts = {starts}, ends = {ends}, steps = {steps} }}"
            ),
        )
    for shape, before, after in (([3, 31], [1, 0], [0, 2]), ([2, 3, 4, 7], [0, 1, 2, 0], [0, 1, 0, 0])):
        yield (
            "pad",
            (
                f'op = "pad"\ninputs = {{ x = {shape} }}\n'
                f"attributes = {{ before = {before}, after = {after}, value = 1.5 }}"
            ),
        )
    for shapes, axis in (([[2, 3, 7], [2, 3, 8], [2, 3, 1]], -1), ([[1, 9], [4, 9]], 0)):
        yield "concat", f'op = "concat"\ninputs = {shapes}\nattributes = {{ axis = {axis} }}'
    for name, kind in (("gather", "int32"), ("gather", "int64"), ("embedding", "int64")):
        yield (
            name,
            (
                f'op = "{name}"\ninputs = {{ table = [7, 3, 11], indices = [4, 9] }}\n'
                f'attributes = {{ index_type = "{kind}" }}'
            ),
        )
    yield "reshape", 'op = "reshape"\ninputs = { x = [3, 35] }\nattributes = { shape = [5, 21] }'
    for kind in ("int32", "int64"):
        yield "cast", f'op = "cast"\ninputs = {{ x = [311] }}\nattributes = {{ x_type = "{kind}" }}'
    for mode in ("nearest", "bilinear"):
        for size in ([9, 14], [3, 5], [7, 8]):
            yield (
                f"resize_{mode}",
                (
                    f'op = "resize"\ninputs = {{ x = [2, 5, 7, 9] }}\n'
                    f'attributes = {{ size = {size}, mode = "{mode}" }}\nfuse = ["bias"]'
                ),
            )


def _wider_convolutions() -> Iterator[tuple[str, str]]:
    table = [
        # op, x, attributes
        (
            "conv2d",
            [1, 9, 11, 5],
            "filters = 7, kernel = [3, 3], dilation = [2, 2], padding = [2, 2, 2, 2]",
        ),
        ("conv2d", [2, 8, 7, 8], "filters = 12, kernel = [3, 2], groups = 4, padding = [1, 1, 0, 1]"),
        ("conv2d", [1, 6, 33, 6], "filters = 6, kernel = [2, 3], groups = 6, stride = [2, 3]"),
        ("conv2d", [1, 9, 9, 4], "filters = 9, kernel = [3, 3], dilation = [3, 1], groups = 1"),
        (
            "conv2d",
            [1, 3, 10, 9],
            'filters = 8, kernel = [3, 3], padding = [1, 1, 1, 1], x_layout = "NCHW"',
        ),
        ("conv2d", [2, 5, 4, 3], 'filters = 6, kernel = [1, 1], x_layout = "NCHW"'),
        ("conv1d", [2, 33, 7], "filters = 9, kernel = [5], padding = [2, 2], stride = [2]"),
        ("conv1d", [1, 17, 4], "filters = 4, kernel = [3], dilation = [4], padding = [4, 4]"),
        ("conv3d", [1, 4, 5, 6, 3], "filters = 5, kernel = [2, 3, 3], padding = [1, 1, 1, 0, 1, 1]"),
        ("conv3d", [2, 3, 3, 3, 4], "filters = 8, kernel = [1, 1, 1], groups = 2"),
        (
            "conv_transpose2d",
            [1, 4, 5, 3],
            "filters = 7, kernel = [3, 3], stride = [2, 2], padding = [1, 1, 1, 1]",
        ),
        ("conv_transpose2d", [2, 3, 4, 5], "filters = 4, kernel = [2, 2], stride = [2, 2]"),
        (
            "conv_transpose2d",
            [1, 3, 3, 2],
            "filters = 3, kernel = [2, 4], stride = [3, 1], output_padding = [1, 0]",
        ),
        ("conv_transpose2d", [1, 5, 4, 4], "filters = 9, kernel = [3, 5], padding = [0, 1, 2, 1]"),
        (
            "conv_transpose2d",
            [1, 4, 5, 6],
            "filters = 9, kernel = [3, 4], stride = [4, 1], dilation = [2, 3], groups = 3",
        ),
        ("conv_transpose1d", [2, 9, 4], "filters = 6, kernel = [4], stride = [3], groups = 2"),
        (
            "conv_transpose3d",
            [1, 2, 3, 4, 3],
            "filters = 5, kernel = [2, 3, 2], stride = [2, 1, 2], padding = [1, 0, 0, 0, 1, 1]",
        ),
    ]
    fuses = itertools.cycle([["bias", "relu"], [], ["bias", "add"]])
    for (op, x, attributes), fuse in zip(table, fuses, strict=False):
        yield (
            op,
            (
                f'op = "{op}"\ninputs = {{ x = {x} }}\nattributes = {{ {attributes} }}\nfuse = {json.dumps(fuse)}'
            ),
        )
    for op, x, attributes in (table[0], table[1], table[7], table[-3]):
        yield (
            f"{op}_unpacked",
            (f'op = "{op}"\ninputs = {{ x = {x} }}\nattributes = {{ {attributes} }}\nweights = []'),
        )
    yield (
        "depthwise_unpacked",
        (
            'op = "depthwise_conv2d"\ninputs = { x = [1, 5, 7, 11] }\n'
            'attributes = { kernel = [3, 2] }\nweights = []\nfuse = ["bias"]'
        ),
    )
    yield (
        "maxpool1d",
        (
            'op = "max_pool"\ninputs = { x = [2, 17, 9] }\nattributes = { kernel = [3], stride = [2], padding = [1, 1] }'
        ),
    )
    yield (
        "avgpool3d",
        (
            'op = "average_pool"\ninputs = { x = [1, 4, 5, 6, 7] }\n'
            "attributes = { kernel = [2, 3, 2], padding = [1, 1, 0, 0, 1, 1] }"
        ),
    )
    yield (
        "maxpool_dilated",
        (
            'op = "max_pool"\ninputs = { x = [1, 9, 12, 5] }\nattributes = { kernel = [3, 2], dilation = [2, 3] }'
        ),
    )
    yield (
        "depthwise_dilated",
        (
            'op = "depthwise_conv2d"\ninputs = { x = [1, 9, 12, 5] }\n'
            "attributes = { kernel = [3, 3], dilation = [2, 2], padding = [2, 2, 2, 2] }"
        ),
    )
    for transpose in ("nn", "nt", "tn", "tt"):
        yield (
            f"batched_{transpose}",
            (
                f'op = "gemm"\nbatch = 3\nm = 9\nn = 13\nk = 7\ntranspose = "{transpose}"\nweights = []\n'
                'fuse = ["add"]'
            ),
        )
    yield "batched_shared", 'op = "gemm"\nbatch = 4\nm = 5\nn = 33\nk = 8\nfuse = ["bias", "gelu"]'
    # Every special number to the power of every other.
    yield "pow", 'op = "pow"\ninputs = { a = [24, 1], b = [24] }'


def _algebra() -> Iterator[tuple[str, str]]:
    """Arithmetic that has a module of its own, or a schedule for constants that are not packed."""
    yield "shrink", 'op = "shrink"\ninputs = { x = [111] }\nattributes = { threshold = 1.5, bias = 0.25 }'
    for truncated in ("true", "false"):
        yield (
            f"remainder_{truncated}",
            (
                'op = "mod"\ninputs = { a = [24, 1], b = [24] }\n'
                f'attributes = {{ truncated = {truncated} }}\ntype = "float32"'
            ),
        )
    for kind in ("int8", "uint8", "int32", "int64"):
        yield f"pow_{kind}", f'op = "pow"\ninputs = {{ a = [7, 1], b = [19] }}\ntype = "{kind}"'
    for kind in ("uint8", "int32"):
        yield (
            f"maxpool_{kind}",
            f'op = "max_pool"\ninputs = {{ x = [1, 7, 9] }}\nattributes = {{ kernel = [3] }}\ntype = "{kind}"',
        )
    yield (
        "exact_conv",
        (
            'op = "exact_conv2d"\ninputs = { x = [1, 6, 7, 5] }\n'
            "attributes = { filters = 9, kernel = [3, 3], padding = [1, 1, 1, 1] }"
        ),
    )
    yield (
        "sum_pool",
        (
            'op = "sum_pool"\ninputs = { x = [1, 9, 8, 5] }\n'
            "attributes = { kernel = [3, 2], dilation = [1, 2], padding = [1, 0, 1, 1] }"
        ),
    )
    for x, y in (("float32", "int32"), ("int32", "float32"), ("int8", "uint8"), ("bool", "uint8")):
        words = f'x_type = "{x}", y_type = "{y}"'
        yield f"bits_{x}", f'op = "bit_cast"\ninputs = {{ x = [37] }}\nattributes = {{ {words} }}'


def _bends() -> Iterator[tuple[str, str]]:
    for name in ("softplus", "mish"):
        yield name, f'op = "{name}"\ninputs = {{ x = [4111] }}'
    for name in ("mish", "leaky_relu"):
        yield f"gemm_{name}", f'op = "gemm"\nm = 3\nn = 13\nk = 5\nfuse = ["bias", "{name}"]'
    for words in ("alpha = 0.75", "alpha = 1.6732632, gamma = 1.050701", "alpha = 2.5, width = 2.5"):
        yield "elu", f'op = "elu"\ninputs = {{ x = [1031] }}\nattributes = {{ {words} }}'
    for slopes in ("[3, 5, 33]", "[5, 1]", "[33]"):
        yield "prelu", f'op = "prelu"\ninputs = {{ a = [3, 5, 33], b = {slopes} }}'
    for name in ("l1", "sum_square", "log_sum"):
        for shape, axes in (([5, 7, 9], [-1]), ([3, 4, 33], [1]), ([2, 5, 31], [0, 2])):
            words = f"inputs = {{ x = {shape} }}\nattributes = {{ axes = {axes} }}"
            yield f"reduce_{name}", f'op = "reduce_{name}"\n{words}'
