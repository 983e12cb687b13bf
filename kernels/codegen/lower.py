"""One kernel from its plan to an object file, through TVM's LLVM."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import tvm
import tvm_ffi
from tvm import tirx

from kernels.codegen.builder import Builder, empty_function
from kernels.codegen.driver import PARAMETERS, driver_text, run_symbol
from kernels.operators import find_family
from kernels.operators.base import ElementWise
from kernels.plan import Kernel, Plan, Step
from toolchains.target import Target

UNROLL_THRESHOLD = 100
"""LLVM unrolls a loop whole if that gives fewer instructions than this; its own 300 doubles the
code and spills the register tile, for a loop around a tile is as good as its unrolled form."""

NEVER = 1 << 20
"""LLVM makes vectors of what stands side by side if that saves more than this; its own is 0. Of a
panel's odd columns, beside whole vectors, it makes shuffles and spills of the accumulators.
"""


def llvm_target(target: Target, *, odd: bool = False) -> Any:
    """TVM's target for LLVM; the triple is always ours, never TVM's default.

    `odd` tells that vectors of several widths make a panel.
    """
    described: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": target.llvm.triple,
        "mcpu": target.llvm.cpu,
        "vector-width": max(target.cpu.vector_bits, 64),
        "cl-opt": [
            f"-unroll-threshold-aggressive:uint={UNROLL_THRESHOLD}",
            f"-slp-threshold:int={NEVER if odd else 0}",
        ],
    }
    if target.llvm.features:
        described["mattr"] = list(target.llvm.features)
    if target.llvm.abi:
        described["mabi"] = target.llvm.abi
    if target.llvm.float_abi:
        described["mfloat-abi"] = target.llvm.float_abi
    return tvm.target.Target(described)


class FusedSteps:
    """A kernel's epilogue: each step applied to a vector of results in registers."""

    def __init__(self, b: Builder, kernel: Kernel) -> None:
        """The steps of `kernel`, on operands that `b` has declared."""
        self._b, self._kernel = b, kernel
        self._steps = [(step, _element_wise(step)) for step in kernel.epilogue]
        self.heavy = any(family.heavy for _, family in self._steps)

    def __call__(self, value: Any, pixel: Any, column: Any) -> Any:
        """The vector after all steps; `pixel` and `column` say where it lies in the output."""
        b, output = self._b, self._kernel.output
        for step, family in self._steps:
            value = b.let(value)
            operand = None
            if step.operand:
                whole = self._kernel.operand(step.operand).elements == output.elements
                row = pixel * output.shape[-1] if whole and output.shape[:-1] else 0
                operand = b.read(b.buffers[step.operand], row + column, b.lanes(value))
            value = family.apply(b, msgspec.convert(step.attributes, family.attributes), value, operand)
        return value


def _element_wise(step: Step) -> ElementWise:
    family = find_family(step.kind)
    if not isinstance(family, ElementWise):
        raise TypeError(f"{step.kind} is not element-wise")
    return family


def prim_func(kernel: Kernel, target: Target) -> Any:
    """The kernel as a TIR function in the plain C ABI."""
    family = find_family(kernel.kind)
    builder = Builder(target.cpu, target.pointer_bits)
    return builder.function(kernel, lambda b: family.emit(b, kernel, FusedSteps(b, kernel)))


def compile_kernel(kernel: Kernel, target: Target, out: Path) -> None:
    """Write `<symbol>.o`, and `<symbol>.frame.o` whose unwind tables tell the stack's use."""
    text = lower(kernel, target).inspect_source("ll")
    unwanted = SMALL if HELPED.search(text) else ()
    attributes = tuple(each for each in target.llvm.attributes if each not in unwanted)
    write_object(strip(text, attributes, debug=True), out / f"{kernel.symbol}.frame.o")
    write_object(strip(text, attributes), out / f"{kernel.symbol}.o")


def compile_driver(plan: Plan, target: Target, out: Path) -> None:
    """Write `<library>_run.o`, and its `.frame.o`, from the plan of a network."""
    symbol = run_symbol(plan.library)
    stub = _built(symbol, empty_function(symbol, PARAMETERS), llvm_target(target)).inspect_source("ll")
    for suffix, debug in ((".frame.o", True), (".o", False)):
        bare = strip(stub, target.llvm.attributes, debug=debug)
        write_object(driver_text(bare, plan, target), out / f"{symbol}{suffix}")


def lower(kernel: Kernel, target: Target) -> Any:
    """The kernel as TVM's LLVM module, optimised for the target.

    TVM's default pipeline ends in functions that need its runtime. Here nothing but
    intrinsics is lowered, and LLVM gets the function as it was built.
    """
    llvm = llvm_target(target, odd=_odd(kernel, target))
    return _built(kernel.symbol, prim_func(kernel, target), llvm)


def _built(symbol: str, function: Any, llvm: Any) -> Any:
    module = tvm.IRModule({symbol: function})
    module = tirx.transform.BindTarget(llvm)(module)
    module = tirx.transform.LowerIntrin()(module)
    return tvm.get_global_func("target.build.llvm")(module, llvm)


def _odd(kernel: Kernel, target: Target) -> bool:
    """Whether the kernel is a contraction whose panels are no whole vectors."""
    lanes = target.cpu.lanes
    return (
        "kc" in kernel.schedule
        and int(kernel.schedule["nr"]) > lanes > 1
        and (int(kernel.schedule["nr"]) % lanes > 0)
    )


def write_object(text: str, path: Path) -> None:
    """Assemble LLVM IR, which carries TVM's target in its metadata, into an ELF object."""
    load(text).write_to_file(str(path), "o")


def load(text: str) -> Any:
    """TVM's LLVM module of LLVM IR, by way of a file in memory, for TVM reads nothing else."""
    with open(os.memfd_create("kernel.ll"), "w", encoding="utf-8") as source:  # noqa: PTH123 - it has no path
        source.write(text)
        source.flush()
        name = f"/proc/self/fd/{source.fileno()}"
        return tvm_ffi.get_global_func("ffi.Module.load_from_file.ll")(name, "ll")


HELPED = re.compile(r"= ([su](div|rem) |(shl|[la]shr) (\w+ )*(i64|<\d+ x i64>) %[^,]+, %)")
"""Divisions, and shifts of 64 bits: LLVM may call a function for them where it is asked for small code."""
SMALL = ("minsize", "optsize")
DEBUG = ("    #dbg_", "!llvm.dbg.cu")
RUNTIME = (
    "@llvm.global_ctors",
    "@.str",
    "; Function Attrs",
    "declare void @TVMFFIError",
    "  tail call fastcc void @__tvm_set_raised",
    "  call fastcc void @__tvm_set_raised",
)
FUNCTIONS = ("define weak ", "define internal ")


def strip(text: str, attributes: tuple[str, ...] = (), *, debug: bool = False) -> str:
    """LLVM IR without what TVM adds to every module and no kernel needs.

    That is the report of a failed assertion to TVM's runtime (the assertion's `return -1`
    stays), an empty list of constructors, two weak conversion functions of half precision,
    which would be symbols without the library's prefix, and, unless `debug`, debug
    information. What is left cannot unwind, and says so, or ARM's unwind tables would
    refer to a C++ runtime. Functions get the `attributes` beside.
    """
    dropped = RUNTIME if debug else (*RUNTIME, *DEBUG)
    kept = []
    skipping = False
    for line in text.splitlines():
        skipping = skipping or line.startswith(FUNCTIONS)
        if not skipping and not line.startswith(dropped):
            kept.append(_mended(line, attributes, debug=debug))
        skipping = skipping and line != "}"
    return "\n".join(kept) + "\n"


def _mended(line: str, attributes: tuple[str, ...], *, debug: bool) -> str:
    if line.startswith("attributes #"):
        missing = [word for word in ("nounwind", *attributes) if word not in line.split()]
        return line.replace("{", " ".join(["{", *missing]), 1)
    return line if debug else re.sub(r",? !dbg !\d+", "", line)
