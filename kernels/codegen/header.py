"""The C header of a library: what a caller needs to know, and nothing else."""

from __future__ import annotations

import textwrap

from kernels.codegen.interface import ABI_VERSION, TYPES, comment, whole_network
from kernels.plan import ARENA_ALIGNMENT, Kernel, Operand, Plan
from kernels.program import ElementType
from toolchains.target import Target


def header(plan: Plan, target: Target, version: str, weights_sha256: str = "") -> str:
    """The text of `<library>.h`."""
    guard = f"{plan.library.upper()}_H"
    subnormals = (
        "\nThis processor's vector unit flushes subnormal numbers to zero."
        if target.cpu.flushes_subnormals
        else ""
    )
    preamble = textwrap.dedent(f"""\
        Kernels of {plan.library} for {plan.target} ({target.title}), made by kernfit {version}.
        Shapes: {plan.source}.

        Each function returns 0, or -1 without doing anything where a pointer is null or not
        aligned: tensors to their element, an arena to {ARENA_ALIGNMENT} bytes. Buffers must not overlap,
        unless a function's comment says that two may be the same. Functions are reentrant; they
        allocate nothing and keep no state. An arena of 0 bytes may be NULL. Packed weights are
        made from plain arrays by
            python -m kernels.pack manifest.json KERNEL IN.npy OUT.bin""")
    lines = [
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        comment(preamble + _encodings(plan) + subnormals),
        "",
        "#include <stdint.h>",
        "",
        f"#define {plan.library.upper()}_ABI_VERSION {ABI_VERSION}",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]
    if plan.network is not None:
        lines += [*whole_network(plan.library, plan.network, weights_sha256), ""]
        lines += [comment("The network's kernels, each of which can also be called by itself."), ""]
    for kernel in plan.kernels:
        lines += [*_kernel(plan, kernel), ""]
    lines += ["#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
    return "\n".join(lines)


def _encodings(plan: Plan) -> str:
    """What C has no type for, if there is any."""
    types = {operand.dtype for kernel in plan.kernels for operand in kernel.operands}
    told = ""
    if types & {ElementType.FLOAT16, ElementType.BFLOAT16}:
        told += "\n\nfloat16 (IEEE 754's binary16) and bfloat16 are their bits, in a uint16_t."
    if ElementType.BOOL in types:
        told += "\n\nA bool is a uint8_t of 0 or 1, and nothing else."
    return told


def macro(plan: Plan, kernel: Kernel, what: str) -> str:
    """The name of a constant of a kernel."""
    return f"{plan.library.upper()}_{kernel.name.upper()}_{what}"


def declaration(kernel: Kernel) -> str:
    """The C declaration of a kernel, without its semicolon."""
    parameters = [_parameter(operand) for operand in kernel.operands] + ["void *arena"]
    return f"int32_t {kernel.symbol}({', '.join(parameters)})"


def _parameter(operand: Operand) -> str:
    constant = "" if operand.role == "output" else "const "
    return f"{constant}{TYPES[operand.dtype.value]} *{operand.name}"


def _kernel(plan: Plan, kernel: Kernel) -> list[str]:
    fused = "".join(f", {step.kind}" for step in kernel.epilogue)
    text = [f"{kernel.kind}{fused}: {kernel.flops} floating-point operations."]
    if kernel.winograd:
        m = kernel.winograd
        text.append(f"By Winograd's algorithm F({m}x{m}, 3x3), in fewer; its error has a bound of its own.")
    for operand in kernel.operands:
        shape = "x".join(map(str, operand.shape))
        packed = ""
        if operand.packing:
            size = macro(plan, kernel, f"{operand.name.upper()}_BYTES")
            packed = f", packed in panels of {operand.packing.panel}: {size} bytes"
        text.append(
            f"  {operand.name}: {operand.role}, {operand.dtype.value}[{shape}], {operand.layout}{packed}"
        )
    if kernel.in_place:
        text.append(f"{kernel.in_place} may be the same buffer as {kernel.output.name}.")
    lines = [comment("\n".join(text))]
    lines += [
        f"#define {macro(plan, kernel, f'{operand.name.upper()}_BYTES')} {operand.bytes}"
        for operand in kernel.operands
        if operand.packing
    ]
    lines.append(f"#define {macro(plan, kernel, 'ARENA_BYTES')} {kernel.arena_bytes}")
    return [*lines, f"{declaration(kernel)};"]
