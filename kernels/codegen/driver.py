"""`<library>_run` as LLVM IR: it checks every pointer, then calls the kernels in order.

The text is written here and assembled by the same LLVM as the kernels. It is straight: a
network's calls, places and sizes are all constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kernels.plan import ARENA_ALIGNMENT, Call, NetworkPlan, Place, Plan
from toolchains.target import Target

PARAMETERS = ("inputs", "outputs", "weights", "arena")
PURE = frozenset({"mustprogress", "nofree", "norecurse", "nosync", "willreturn", "memory(none)"})
"""Attributes of an empty function that one with calls does not have."""


def run_symbol(library: str) -> str:
    """The name of the whole network's function."""
    return f"{library}_run"


def weights_symbol(library: str) -> str:
    """The name of the network's weights, where they have a symbol."""
    return f"{library}_weights"


def weights_file(library: str) -> str:
    """The name of the file of a network's weights, where they are beside the library."""
    return f"{library}.weights"


def driver_text(stub: str, plan: Plan, target: Target) -> str:
    """The module `stub`, which holds an empty function of that name, with the network's calls.

    The stub brings what LLVM must know of the target: layout of data, triple, attributes.
    """
    if plan.network is None:
        raise TypeError("a listing has no driver")
    head, tail = re.split(r"define [^\n]*\n[^}]*}\n", stub, maxsplit=1)
    found = re.search(r"define [^\n]*\)( [^\n)]*)\{\n", stub)
    attributes = found[1] if found else ""
    tail = re.sub(
        r"(attributes #0 = \{)(.*)(\})",
        lambda match: match[1] + " ".join(["", *_impure(match[2].split()), ""]) + match[3],
        tail,
    )
    signature = ", ".join(f"ptr noundef %{name}" for name in PARAMETERS)
    lines = [
        *_declarations(plan, plan.network),
        f"define signext i32 @{run_symbol(plan.library)}({signature}){attributes}{{",
        *_body(plan, plan.network, target.pointer_bits),
        "}",
    ]
    return head + "\n".join(lines) + "\n" + tail


def _impure(words: list[str]) -> list[str]:
    return [word for word in words if word not in PURE]


def _declarations(plan: Plan, network: NetworkPlan) -> Iterator[str]:
    for kernel in plan.kernels:
        yield f"declare i32 @{kernel.symbol}({', '.join(['ptr'] * (len(kernel.operands) + 1))})"
    visibility = {"embed": "external hidden", "symbol": "external"}.get(network.weights_mode)
    if network.weights_bytes and visibility:
        kind = f"[{network.weights_bytes} x i8], align {ARENA_ALIGNMENT}"
        yield f"@{weights_symbol(plan.library)} = {visibility} constant {kind}"


def _body(plan: Plan, network: NetworkPlan, bits: int) -> Iterator[str]:
    """Three blocks: the structures are checked, then the pointers in them, then all is called."""
    weights = "%weights"
    if network.weights_mode != "file":
        weights = f"@{weights_symbol(plan.library)}"
    yield "entry:"
    checks = [("%inputs", bits // 8)] if network.inputs else []
    checks.append(("%outputs", bits // 8))
    if network.weights_bytes and network.weights_mode != "embed":
        checks.append((weights, ARENA_ALIGNMENT))
    if network.arena_bytes:
        checks.append(("%arena", ARENA_ALIGNMENT))
    yield from _usable("structures", checks, bits)
    yield "  br i1 %structures, label %tensors, label %refused"
    yield "tensors:"
    checks = []
    for structure, ports in (("inputs", network.inputs), ("outputs", network.outputs)):
        for number, port in enumerate(ports):
            name = f"%{structure}.{number}"
            yield f"  {name}.at = getelementptr inbounds ptr, ptr %{structure}, i{bits} {number}"
            yield f"  {name} = load ptr, ptr {name}.at"
            checks.append((name, port.dtype.bytes))
    yield from _usable("pointers", checks, bits)
    yield "  br i1 %pointers, label %calls, label %refused"
    yield "refused:"
    yield "  ret i32 -1"
    yield "calls:"
    result = ""
    symbols = {kernel.name: kernel.symbol for kernel in plan.kernels}
    for number, call in enumerate(network.calls):
        pointers = []
        for name, place in _pointers(call):
            pointer = f"%call.{number}.{name}"
            if place is None:
                pointers.append("ptr null")
            elif place.home in ("input", "output"):
                pointers.append(f"ptr %{place.home}s.{place.number}")
            else:
                base = weights if place.home == "weights" else "%arena"
                yield f"  {pointer} = getelementptr inbounds i8, ptr {base}, i{bits} {place.offset}"
                pointers.append(f"ptr {pointer}")
        yield f"  %status.{number} = call i32 @{symbols[call.kernel]}({', '.join(pointers)})"
        yield f"  %result.{number} = or i32 {result or '0'}, %status.{number}"
        result = f"%result.{number}"
    yield f"  ret i32 {result or '0'}"


def _pointers(call: Call) -> Iterator[tuple[str, Place | None]]:
    for number, place in enumerate(call.places):
        yield str(number), place
    yield "arena", None if call.scratch is None else Place(home="arena", offset=call.scratch)


def _usable(name: str, checks: list[tuple[str, int]], bits: int) -> Iterator[str]:
    """`%name` is true if no pointer is null, nor has a bit set below its alignment."""
    usable = ""
    for number, (pointer, alignment) in enumerate(checks):
        stem = f"%{name}.{number}"
        last = number == len(checks) - 1
        yield f"  {stem}.address = ptrtoint ptr {pointer} to i{bits}"
        yield f"  {stem}.there = icmp ne i{bits} {stem}.address, 0"
        yield f"  {stem}.low = and i{bits} {stem}.address, {alignment - 1}"
        yield f"  {stem}.aligned = icmp eq i{bits} {stem}.low, 0"
        yield f"  {stem}.fine = and i1 {stem}.there, {stem}.aligned"
        all_fine = f"%{name}" if last else f"{stem}.all"
        yield f"  {all_fine} = and i1 {usable or f'{stem}.there'}, {stem}.fine"
        usable = f"{stem}.all"
