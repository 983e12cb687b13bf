"""What a C developer finds beside a library: pkg-config and CMake files, and a worked example."""

from __future__ import annotations

from textwrap import dedent

from kernels.codegen.example import network_example
from kernels.codegen.header import macro
from kernels.codegen.interface import TYPES
from kernels.plan import Kernel, Operand, Plan
from kernels.program import ElementType


def package_files(plan: Plan, version: str) -> dict[str, str]:
    """Texts by file name; all of them find the library where they lie themselves."""
    return {
        f"{plan.library}.pc": pkg_config(plan, version),
        f"{plan.library}-config.cmake": cmake_config(plan),
        "example.c": network_example(plan.library, plan.network)
        if plan.network
        else example(plan, example_kernel(plan)),
    }


def pkg_config(plan: Plan, version: str) -> str:
    """The file that `pkg-config` reads."""
    return dedent(f"""\
        prefix=${{pcfiledir}}

        Name: {plan.library}
        Description: kernels of {plan.library} for {plan.target}, made by kernfit
        Version: {version}
        Cflags: -I${{prefix}}
        Libs: -L${{prefix}} -l{plan.library}
        """)


def cmake_config(plan: Plan) -> str:
    """The file that CMake's find_package({library} CONFIG) reads."""
    return dedent(f"""\
        # find_package({plan.library} CONFIG) defines the target kernfit::{plan.library}.
        if(NOT TARGET kernfit::{plan.library})
          add_library(kernfit::{plan.library} STATIC IMPORTED)
          set_target_properties(kernfit::{plan.library} PROPERTIES
            IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/lib{plan.library}.a"
            INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}")
        endif()
        """)


def example_kernel(plan: Plan) -> Kernel:
    """The kernel with the smallest tensors, of numbers that C knows if there is one."""

    def cost(kernel: Kernel) -> tuple[bool, int]:
        halves = any(operand.dtype in ONE for operand in kernel.operands)
        return halves, sum(operand.bytes for operand in kernel.operands)

    return min(plan.kernels, key=cost)


ONE = {ElementType.FLOAT16: 0x3C00, ElementType.BFLOAT16: 0x3F80}
"""The bits of 1.0; those that follow are numbers a little larger."""


def example(plan: Plan, kernel: Kernel) -> str:
    """A program that calls one kernel; it is C, and C++ as well."""
    inputs = [operand for operand in kernel.operands if operand.role != "output"]
    output = kernel.output
    arguments = ", ".join([*(operand.name for operand in kernel.operands), "arena"])
    lines = [
        f"/* Calls {kernel.symbol} on made-up numbers and prints its results.",
        " *",
        f" *     cc example.c $(pkg-config --cflags --libs ./{plan.library}.pc) -o example",
        " */",
        "#include <stdio.h>",
        "",
        f'#include "{plan.library}.h"',
        "",
        *(f"static {_c_type(operand)} {operand.name}[{operand.elements}];" for operand in kernel.operands),
        "",
        "int main(void)",
        "{",
    ]
    arena = macro(plan, kernel, "ARENA_BYTES")
    form, shown = "%g", f"(double){output.name}[i]"
    if output.dtype is ElementType.FLOAT32:
        shown = f"{output.name}[i]"
    elif output.dtype in ONE:
        form, shown = "0x%04x", f"{output.name}[i]"
    if kernel.arena_bytes:
        lines += [
            f"    static unsigned char memory[{arena} + 64];",
            "    void *arena = memory + (64 - (uintptr_t)memory % 64) % 64;",
        ]
    else:
        lines.append("    void *arena = NULL; /* this kernel needs none */")
    lines.append("    int i;")
    for operand in inputs:
        value = f"i % {pattern(operand)[0]}"
        if operand.dtype is ElementType.FLOAT32:
            value = f"({value}) * 0.25f - 0.5f"
        elif operand.dtype in ONE:
            value = f"{ONE[operand.dtype]:#x} + {value}"
        lines += [f"    for (i = 0; i < {operand.elements}; i++)", f"        {operand.name}[i] = {value};"]
    lines += [
        f"    if ({kernel.symbol}({arguments}) != 0)",
        "        return 1;",
        f"    for (i = 0; i < {output.elements} && i < 8; i++)",
        f'        printf("{output.name}[%d] = {form}\\n", i, {shown});',
        "    return 0;",
        "}",
        "",
    ]
    return "\n".join(lines)


def pattern(operand: Operand) -> tuple[int, float, float]:
    """period, factor and offset of the numbers that the example puts into an operand."""
    if operand.dtype is ElementType.FLOAT32:
        return 5 + len(operand.name) % 3, 0.25, -0.5
    return 2 if operand.dtype is ElementType.BOOL else 5, 1.0, 0.0


def _c_type(operand: Operand) -> str:
    return TYPES[operand.dtype.value]
