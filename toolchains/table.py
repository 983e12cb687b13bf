"""The C source of the runner's table: every function of a library, called through its header."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kernels.codegen.driver import run_symbol
from kernels.codegen.header import declaration
from kernels.plan import Kernel, NetworkPlan, Plan

GUARD_BYTES = 192
"""As in runner/table.h."""
LINE_BYTES = 64
PAGE_BYTES = 65536
RUN = "run"
"""The name that a network goes by among its kernels; none of them can have it."""


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One block of memory of a call; `aligned` ones begin a line, others lie off it."""

    name: str
    bytes: int
    output: bool = False
    aligned: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One function in the table: the C statements that call it with `operands` and `arena`.

    `in_place` is the number of the argument that is given the output's own buffer, if one is.
    """

    name: str
    declaration: str
    statements: tuple[str, ...]
    arguments: tuple[Argument, ...]
    arena_bytes: int
    in_place: int | None = None

    @property
    def memory(self) -> int:
        """Bytes for all of it, between canaries as between pages that must not be touched."""
        apart = [each.bytes for number, each in enumerate(self.arguments) if number != self.in_place]
        lined = sum(GUARD_BYTES + size + 2 * LINE_BYTES for size in apart)
        pages = sum(2 + -(-(size + GUARD_BYTES) // PAGE_BYTES) for size in (*apart, self.arena_bytes))
        return max(lined + self.arena_bytes + 2 * GUARD_BYTES, pages * PAGE_BYTES)


def runner_table(plan: Plan) -> str:
    """The text of `table.c`: a library's kernels, and its network if it is one."""
    return table_text([plan.library], _entries(plan))


def most_operands(plan: Plan) -> int:
    """Of one function of the table."""
    return max(len(entry.arguments) for entry in _entries(plan))


def _entries(plan: Plan) -> list[Entry]:
    entries = [_kernel(kernel) for kernel in plan.kernels]
    if plan.network is not None:
        entries.append(network_entry(plan, plan.network, RUN))
    return entries


def table_text(libraries: Sequence[str], entries: Sequence[Entry]) -> str:
    """The text of a `table.c` of these functions of these libraries."""
    lines = ['#include "table.h"', *(f'#include "{library}.h"' for library in libraries), ""]
    for number, entry in enumerate(entries):
        lines += [
            f"/* {entry.declaration} */",
            f"static int32_t call{number}(void **operands, void *arena)",
            "{",
            *(f"    {statement}" for statement in entry.statements),
            "}",
            f"static const struct operand operands{number}[] = {{",
            *(
                f'    {{"{each.name}", {each.bytes}UL, {int(each.output)}, {int(each.aligned)}}},'
                for each in entry.arguments
            ),
            "};",
            "",
        ]
    most = max(len(entry.arguments) for entry in entries)
    memory = max(entry.memory for entry in entries)
    lines += [
        f'_Static_assert({most} <= MAX_OPERANDS, "too many operands");',
        "const struct kernel kernels[] = {",
        *(
            f'    {{"{entry.name}", call{number}, operands{number}, {len(entry.arguments)}, '
            f"{len(entry.arguments) if entry.in_place is None else entry.in_place}, "
            f"{entry.arena_bytes}UL}},"
            for number, entry in enumerate(entries)
        ),
        "};",
        f"const unsigned long kernel_count = {len(entries)};",
        f"unsigned char memory[{memory}] __attribute__((aligned({PAGE_BYTES})));",
        "",
    ]
    return "\n".join(lines)


def _kernel(kernel: Kernel) -> Entry:
    arguments = [f"operands[{i}]" for i in range(len(kernel.operands))]
    names = [operand.name for operand in kernel.operands]
    return Entry(
        name=kernel.name,
        declaration=declaration(kernel),
        statements=(f"return {kernel.symbol}({', '.join([*arguments, 'arena'])});",),
        arguments=tuple(
            Argument(name=operand.name, bytes=operand.bytes, output=operand.role == "output")
            for operand in kernel.operands
        ),
        arena_bytes=kernel.arena_bytes,
        in_place=names.index(kernel.in_place) if kernel.in_place else None,
    )


def network_entry(plan: Plan, network: NetworkPlan, name: str) -> Entry:
    """The whole network under a name: inputs, outputs, and weights that are in a file."""
    numbers = iter(range(len(network.inputs) + len(network.outputs)))
    structures = [
        f"const {plan.library}_{which} {which} = "
        f"{{{', '.join(f'operands[{next(numbers)}]' for _ in ports) or '0'}}};"
        for which, ports in (("inputs", network.inputs), ("outputs", network.outputs))
    ]
    arguments = [
        *(Argument(name=port.identifier, bytes=port.bytes) for port in network.inputs),
        *(Argument(name=port.identifier, bytes=port.bytes, output=True) for port in network.outputs),
    ]
    weights = "0"
    if network.weights and network.weights_mode == "file":
        weights = f"operands[{len(arguments)}]"
        arguments.append(Argument(name="weights", bytes=network.weights_bytes, aligned=True))
    symbol = run_symbol(plan.library)
    return Entry(
        name=name,
        declaration=f"int32_t {symbol}(inputs, outputs, weights, arena)",
        statements=(*structures, f"return {symbol}(&inputs, &outputs, {weights}, arena);"),
        arguments=tuple(arguments),
        arena_bytes=network.arena_bytes,
    )
