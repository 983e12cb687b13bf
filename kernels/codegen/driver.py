"""`<library>_run` as LLVM IR: it checks every pointer, then calls the kernels in order.

The text is written here and assembled by the same LLVM as the kernels. It has no loop: a
network's calls, places and sizes are all constants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from kernels.plan import ARENA_ALIGNMENT, Call, NetworkPlan, Place, Plan
from toolchains.target import Target

PARAMETERS = ("inputs", "outputs", "weights", "arena")
PURE = frozenset({"mustprogress", "nofree", "norecurse", "nosync", "willreturn", "memory(none)"})
"""Attributes of an empty function that one with calls does not have."""
CALLS_PER_PART = 64
"""LLVM's time grows with the square of a function's length, so the run is divided."""


def run_symbol(library: str) -> str:
    """The name of the whole network's function."""
    return f"{library}_run"


def weights_symbol(library: str) -> str:
    """The name of the network's weights, where they have a symbol."""
    return f"{library}_weights"


def weights_file(library: str) -> str:
    """The name of the file of a network's weights, where they are beside the library."""
    return f"{library}.weights"


def run_symbols(library: str, network: NetworkPlan) -> tuple[str, ...]:
    """The driver's functions: the run, and its parts, which nobody sees outside the library."""
    run = run_symbol(library)
    return (run, *(f"{run}.{first}" for first in range(0, len(network.calls), CALLS_PER_PART)))


def driver_text(stub: str, plan: Plan, target: Target) -> str:
    """The module `stub`, which holds an empty function of that name, with the network's calls.

    The stub brings what LLVM must know of the target: layout of data, triple, attributes.
    """
    if plan.network is None:
        raise TypeError("a listing has no driver")
    head, tail = re.split(r"define [^\n]*\n[^}]*}\n", stub, maxsplit=1)
    found = re.search(r"define [^\n]*\)( [^\n)]*)\{\n", stub)
    attributes = found[1] if found else ""
    inner = re.sub(r"!dbg !\d+ ", "", attributes)  # which is of one function alone
    tail = re.sub(
        r"(attributes #0 = \{)(.*)(\})",
        lambda match: match[1] + " ".join(["", *_impure(match[2].split()), ""]) + match[3],
        tail,
    )
    network, bits = plan.network, target.pointer_bits
    weights = "%weights" if network.weights_mode == "file" else f"@{weights_symbol(plan.library)}"
    signature = ", ".join(f"ptr noundef %{name}" for name in PARAMETERS)
    passed = ", ".join(f"ptr %{name}" for name in PARAMETERS)
    symbols = {kernel.name: kernel.symbol for kernel in plan.kernels}
    run, *parts = run_symbols(plan.library, network)
    checks = [partial(_check, *each, bits) for each in _checked(network, weights, bits)]
    if network.weights_layout:
        checks.append(partial(_layout, network, weights, target))
    lines = [
        *_declarations(plan, network),
        f"define signext i32 @{run}({signature}){attributes}{{",
        *_chain([*checks, *(partial(_part, part, passed) for part in parts)]),
        "}",
    ]
    for number, part in enumerate(parts):
        first = number * CALLS_PER_PART
        calls = network.calls[first : first + CALLS_PER_PART]
        lines += [
            f"define internal i32 @{part}({signature}){inner}{{",
            *_chain([partial(_call, call, symbols[call.kernel], weights, bits) for call in calls]),
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


def _chain(blocks: Sequence[Callable[[str], Iterable[str]]]) -> Iterator[str]:
    """A function's blocks in order, each with the prefix of its values; without its `.fine` all ends."""
    for number, block in enumerate(blocks):
        yield f"block.{number}:"
        yield from block(f"%block.{number}")
        yield f"  br i1 %block.{number}.fine, label %block.{number + 1}, label %refused"
    yield f"block.{len(blocks)}:"
    yield "  ret i32 0"
    yield "refused:"
    yield "  ret i32 -1"


def _checked(network: NetworkPlan, weights: str, bits: int) -> Iterator[tuple[str | Place, int]]:
    """All pointers and their alignments, the structures' first."""
    if network.inputs:
        yield "%inputs", bits // 8
    yield "%outputs", bits // 8
    if network.weights_bytes and network.weights_mode != "embed":
        yield weights, ARENA_ALIGNMENT
    if network.arena_bytes:
        yield "%arena", ARENA_ALIGNMENT
    for number, port in enumerate(network.inputs):
        if port.elements:
            yield Place(home="input", number=number), port.dtype.bytes
    for number, port in enumerate(network.outputs):
        if port.elements:
            yield Place(home="output", number=number), port.dtype.bytes


def _check(pointer: str | Place, alignment: int, bits: int, stem: str) -> Iterator[str]:
    """A pointer is fine if it is not null, nor has a bit set below its alignment."""
    if isinstance(pointer, Place):
        yield from _pointer(f"{stem}.pointer", pointer, "", bits)
        pointer = f"{stem}.pointer"
    yield f"  {stem}.address = ptrtoint ptr {pointer} to i{bits}"
    yield f"  {stem}.there = icmp ne i{bits} {stem}.address, 0"
    yield f"  {stem}.low = and i{bits} {stem}.address, {alignment - 1}"
    yield f"  {stem}.aligned = icmp eq i{bits} {stem}.low, 0"
    yield f"  {stem}.fine = and i1 {stem}.there, {stem}.aligned"


def _layout(network: NetworkPlan, weights: str, target: Target, stem: str) -> Iterator[str]:
    """The weights are of the library's layout if their last bytes are its hash."""
    layout = bytes.fromhex(network.weights_layout)
    first, fine = network.weights_bytes - len(layout), "true"
    for number in range(0, len(layout), 8):
        word = int.from_bytes(layout[number : number + 8], target.endianness, signed=True)
        place = Place(home="weights", offset=first + number)
        yield from _pointer(f"{stem}.{number}", place, weights, target.pointer_bits)
        yield f"  {stem}.word{number} = load i64, ptr {stem}.{number}, align 8"
        yield f"  {stem}.same{number} = icmp eq i64 {stem}.word{number}, {word}"
        last = number + 8 == len(layout)
        yield f"  {stem}.{'fine' if last else f'all{number}'} = and i1 {stem}.same{number}, {fine}"
        fine = f"{stem}.all{number}"


def _part(symbol: str, passed: str, stem: str) -> Iterator[str]:
    yield f"  {stem}.status = call i32 @{symbol}({passed})"
    yield f"  {stem}.fine = icmp eq i32 {stem}.status, 0"


def _call(call: Call, symbol: str, weights: str, bits: int, stem: str) -> Iterator[str]:
    """A call of a kernel, which never refuses what was checked, and before it the pointers it gets."""
    arguments = []
    for number, place in enumerate((*call.places, _scratch(call))):
        if place is None:
            arguments.append("ptr null")
            continue
        yield from _pointer(f"{stem}.{number}", place, weights, bits)
        arguments.append(f"ptr {stem}.{number}")
    yield f"  {stem}.status = call i32 @{symbol}({', '.join(arguments)})"
    yield f"  {stem}.fine = icmp eq i32 {stem}.status, 0"


def _scratch(call: Call) -> Place | None:
    return None if call.scratch is None else Place(home="arena", offset=call.scratch)


def _pointer(name: str, place: Place, weights: str, bits: int) -> Iterator[str]:
    """The pointer `name` to a place: in a block of memory, or from one of the structures."""
    if place.home in ("input", "output"):
        yield f"  {name}.at = getelementptr inbounds ptr, ptr %{place.home}s, i{bits} {place.number}"
        yield f"  {name}.whole = load ptr, ptr {name}.at"
        yield f"  {name} = getelementptr inbounds i8, ptr {name}.whole, i{bits} {place.offset}"
    else:
        base = weights if place.home == "weights" else "%arena"
        yield f"  {name} = getelementptr inbounds i8, ptr {base}, i{bits} {place.offset}"
