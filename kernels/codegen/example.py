"""The example of a whole network: a C program from a file of inputs to a file of outputs."""

from __future__ import annotations

from kernels.codegen.driver import run_symbol, weights_file
from kernels.codegen.interface import TYPES, comment
from kernels.plan import NetworkPlan, Port


def network_example(library: str, network: NetworkPlan) -> str:
    """The text of example.c; it is C, and C++ as well.

    Its buffers are static, for some networks want more than a stack or a small heap has.
    """
    prefix = library.upper()
    from_file = bool(network.weights) and network.weights_mode == "file"
    usage = "IN OUT" + (f" {weights_file(library)}" if from_file else "")
    words = 4 if from_file else 3
    inputs = " and ".join(f"{port.identifier} ({port.bytes})" for port in network.inputs) or "nothing"
    outputs = " and ".join(f"{port.identifier} ({port.bytes})" for port in network.outputs)
    told = (
        f"Runs {library} on the raw bytes of a file: IN holds {inputs},\n"
        f"OUT gets {outputs}, in bytes.\n\n"
        f"    cc example.c $(pkg-config --cflags --libs ./{library}.pc) -o example\n"
        f"    ./example {usage}"
    )
    lines = [
        comment(told),
        "#include <stdio.h>",
        "",
        f'#include "{library}.h"',
        "",
        *(_buffer("inputs", port) for port in network.inputs),
        *(_buffer("outputs", port) for port in network.outputs),
    ]
    if network.arena_bytes:
        lines.append(f"static unsigned char arena_memory[{prefix}_ARENA_BYTES + 64];")
    if from_file:
        lines.append(f"static unsigned char weights_memory[{prefix}_WEIGHTS_BYTES + 64];")
    lines += [
        "",
        *(ALIGNED if network.arena_bytes or from_file else ()),
        *(TAKE if network.inputs or from_file else ()),
        *GIVE,
        "int main(int count, char **words)",
        "{",
        f"    {library}_inputs inputs;",
        f"    {library}_outputs outputs;",
        "    const void *weights = NULL;",
        "    void *arena = NULL;",
        "    FILE *file;",
        "    int fine = 1;",
        "",
        f"    if (count != {words}) {{",
        f'        fprintf(stderr, "usage: example {usage}\\n");',
        "        return 2;",
        "    }",
        *(f"    inputs.{port.identifier} = inputs_{port.identifier};" for port in network.inputs),
        *([] if network.inputs else ["    inputs.none = NULL;"]),
        *(f"    outputs.{port.identifier} = outputs_{port.identifier};" for port in network.outputs),
        '    file = fopen(words[1], "rb");',
        *(f"    fine = fine && take(file, inputs_{p.identifier}, {p.bytes});" for p in network.inputs),
        "    if (file)",
        "        fclose(file);",
    ]
    if from_file:
        lines += [
            "    weights = aligned(weights_memory);",
            '    file = fopen(words[3], "rb");',
            f"    fine = fine && take(file, aligned(weights_memory), {prefix}_WEIGHTS_BYTES);",
            "    if (file)",
            "        fclose(file);",
        ]
    if network.arena_bytes:
        lines.append("    arena = aligned(arena_memory);")
    lines += [
        "    if (!fine) {",
        '        fprintf(stderr, "a file is missing or too short\\n");',
        "        return 3;",
        "    }",
        f"    if ({run_symbol(library)}(&inputs, &outputs, weights, arena) != 0)",
        "        return 1;",
        '    file = fopen(words[2], "wb");',
        *(f"    fine = fine && give(file, outputs_{p.identifier}, {p.bytes});" for p in network.outputs),
        "    return file && fclose(file) == 0 && fine ? 0 : 3;",
        "}",
        "",
    ]
    return "\n".join(lines)


ALIGNED = (
    "static void *aligned(unsigned char *memory)",
    "{",
    "    return memory + (64 - (uintptr_t)memory % 64) % 64;",
    "}",
    "",
)
TAKE = (
    "static int take(FILE *file, void *to, size_t size)",
    "{",
    "    return file && fread(to, 1, size, file) == size;",
    "}",
    "",
)
GIVE = (
    "static int give(FILE *file, const void *from, size_t size)",
    "{",
    "    return file && fwrite(from, 1, size, file) == size;",
    "}",
    "",
)


def _buffer(which: str, port: Port) -> str:
    return f"static {TYPES[port.dtype.value]} {which}_{port.identifier}[{port.elements or 1}];"
