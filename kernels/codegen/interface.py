"""What a C caller sees of a whole network: structures of named pointers, sizes, one function."""

from __future__ import annotations

from kernels.codegen.driver import run_symbol, weights_file, weights_symbol
from kernels.plan import ARENA_ALIGNMENT, NetworkPlan, Port

ABI_VERSION = 1
"""Of every library's C ABI, in its header and its manifest. One more with a release in which the
interface of any library that an earlier release had is another: see docs/release.md."""
TYPES = {
    "float32": "float",
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "uint8_t",
}
"""C's types of elements. Not every compiler knows the half formats, so that these are their bits;
a bool is a byte of 0 or 1, for C's own may not hold another value even by mistake."""


def whole_network(library: str, network: NetworkPlan, weights_sha256: str) -> list[str]:
    """The part of the header about `<library>_run`, line by line."""
    prefix = library.upper()
    count = len(network.calls)
    return [
        comment(
            f"The whole network: {count} calls of the kernels below. Result 0, or -1 with nothing\n"
            "written where a pointer is null or not aligned: tensors to their element, the arena"
            f"\nand weights to {ARENA_ALIGNMENT} bytes. No two buffers may overlap."
        ),
        f"#define {prefix}_ARENA_BYTES {network.arena_bytes}",
        *_weights(library, network, weights_sha256),
        "",
        *_structure(library, "inputs", network.inputs, "const "),
        "",
        *_structure(library, "outputs", network.outputs, ""),
        "",
        f"int32_t {run_symbol(library)}(const {library}_inputs *inputs, const {library}_outputs *outputs,",
        f"{' ' * len(f'int32_t {run_symbol(library)}(')}const void *weights, void *arena);",
    ]


def _weights(library: str, network: NetworkPlan, sha256: str) -> list[str]:
    """Their size, and what to do about them."""
    prefix = library.upper()
    lines = [f"#define {prefix}_WEIGHTS_BYTES {network.weights_bytes}"]
    if network.weights:
        lines.append(f'#define {prefix}_WEIGHTS_SHA256 "{sha256}"')
    if network.weights_layout:
        lines.append(f'#define {prefix}_WEIGHTS_LAYOUT_SHA256 "{network.weights_layout}"')
    name = weights_file(library)
    if not network.weights:
        return [comment("The network has no weights; pass NULL."), *lines]
    if network.weights_mode == "embed":
        return [comment("The weights are in the library; pass NULL for them."), *lines]
    if network.weights_mode == "file":
        told = f"The weights are the bytes of {name}, wherever the caller maps or flashes them."
        return [comment(told + _exchanged(name)), *lines]
    told = (
        f"The weights are the bytes of {name}; who links the library defines them, aligned\n"
        f"to {ARENA_ALIGNMENT} bytes. Pass NULL for them."
    )
    return [
        comment(told + _exchanged(name)),
        *lines,
        f"extern const unsigned char {weights_symbol(library)}[];",
    ]


def _exchanged(name: str) -> str:
    """How other weights take the place of those that came with the library."""
    return (
        "\nThose that came with the library have the SHA-256 below. Others are made of a model of the"
        "\nsame nodes and shapes by"
        f"\n    python -m kernels.pack manifest.json MODEL.onnx {name}"
        "\nWeights end with the 32 bytes of their layout's SHA-256; the run returns -1 for another layout."
    )


def _structure(library: str, which: str, ports: tuple[Port, ...], constant: str) -> list[str]:
    if not ports:
        none = f"    const void *none; /* it has no {which} */"
        return ["typedef struct {", none, f"}} {library}_{which};"]
    lines = ["typedef struct {"]
    for port in ports:
        shape = "x".join(map(str, port.shape)) or "1"
        told = f"{_quoted(port.name)}: {port.dtype.value}[{shape}], {port.layout}: {port.bytes} bytes"
        told += "" if port.elements else "; it is not looked at and may be NULL"
        lines.append(f"    {constant}{TYPES[port.dtype.value]} *{port.identifier}; {comment(told)}")
    return [*lines, f"}} {library}_{which};"]


def _quoted(name: str) -> str:
    """A model's own name, with nothing that would end a line or a comment early."""
    return '"' + "".join(c if c.isprintable() and c not in '\\"' else "?" for c in name) + '"'


def comment(text: str) -> str:
    """A comment in C, of one line or several."""
    safe = text.replace("*/", "* /").replace("/*", "/ *")
    return "/* " + "\n * ".join(safe.splitlines()) + " */"
