"""Tables of what there is: targets, the catalogue, and what a machine has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from kernels import models
from toolchains.machine import Finding
from toolchains.target import NATIVE, Target


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def targets(known: Iterable[Target]) -> Table:
    """A row for each target."""
    table = _table("target", "processor", "byte order", "vectors", "checked on")
    for each in known:
        vectors = f"{each.cpu.vector_registers} x {each.cpu.vector_bits} bits"
        table.add_row(
            each.name,
            each.title,
            each.endianness,
            vectors if each.cpu.vector_bits else "scalar",
            "\n".join(
                "this machine" if cpu == NATIVE else f"{each.qemu.binary} -cpu {cpu}"
                for cpu in each.checked_on
            ),
        )
    return table


def catalogue() -> Table:
    """A row for each listing that ships."""
    table = _table("model", "kernels", "calls", "source")
    for name, path in models.catalog().items():
        program = models.read_listing(path)
        leading = {op.group: op.count for op in program.operators}
        default = " (default)" if name == models.DEFAULT else ""
        table.add_row(name + default, str(len(leading)), str(sum(leading.values())), program.source)
    return table


COLOURS = {"here": "green", "missing": "red", "absent": "yellow"}


def findings(found: Sequence[Finding]) -> Table:
    """A row for each part of a machine, with what mends it."""
    table = _table("what", "state", "detail", "to get it")
    for each in found:
        table.add_row(each.name, f"[{COLOURS[each.state]}]{each.state}[/]", each.detail, each.mend)
    return table
