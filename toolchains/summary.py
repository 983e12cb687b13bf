"""What a task prints at its end: tables, paths, and what went wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from kernels.errors import CheckFailedError, CheckSkippedError
from kernels.manifest import Manifest
from toolchains.batch import Failure, first_line
from toolchains.pipeline import Built
from toolchains.report import Report, Row

if TYPE_CHECKING:  # the onnx package takes a while, and builds print summaries too
    from kernels.estimate import Estimate
    from kernels.models.inspection import Inspection


def conclude(
    console: Console, built: Sequence[Built], failures: Sequence[Failure], *, skipped_too: bool
) -> None:
    """Show what was built, on the job's page of GitHub's as well where there is one.

    Raises the first failure, or what `require` says of the checks.
    """
    print_built(console, built, failures)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        append_markdown(Path(page), built, failures)
    if failures:
        raise failures[0].error
    require([each.report for each in built], skipped_too=skipped_too)


def print_built(console: Console, built: Sequence[Built], failures: Sequence[Failure]) -> None:
    """One row for each model and target, then the archives with their hashes, and what failed."""
    if built:
        _print_table(console, built)
    if len(built) + len(failures) > 1:
        for failure in failures:
            console.print(
                f"failed: {failure.name}: {first_line(failure.error)}", soft_wrap=True, markup=False
            )


HEADINGS = (
    "model",
    "target",
    "kernels",
    "code bytes",
    "constants",
    "arena bytes",
    "checks",
    "worst error / bound",
    "seconds",
)
NAMES = 2
"""How many of these are names; the rest are numbers, at the right."""


def _cells(each: Built) -> tuple[str, ...]:
    return (
        each.manifest.library,
        each.target,
        str(len(each.manifest.kernels)),
        f"{_code(each.manifest):,}",
        f"{_constants(each.manifest):,}",
        f"{_arena(each.manifest):,}",
        _checks(each.report),
        _worst(each.report),
        "cached" if each.cached else f"{each.ended.seconds or 0.0:.1f}" if each.ended else "-",
    )


def append_markdown(page: Path, built: Sequence[Built], failures: Sequence[Failure]) -> None:
    """Append the table, the hashes and what failed to a page of a continuous-integration service."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * NAMES}{'---:|' * (len(HEADINGS) - NAMES)}",
        *(f"| {' | '.join(_cells(each))} |" for each in built),
        "",
        *(f"- `{each.sha256}` {each.archive.name}" for each in built if each.sha256),
        *(
            f"- {each.target}: checks failed, so no archive was written"
            for each in built
            if not each.sha256
        ),
        *(f"- failed: {each.name}: {first_line(each.error)}" for each in failures),
        "",
    ]
    with page.open("a", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")


def _print_table(console: Console, built: Sequence[Built]) -> None:
    table = Table(box=None, header_style="bold")
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index < NAMES else "right")
    for each in built:
        table.add_row(*_cells(each))
    console.print(table)
    _print_problems(console, [each.report for each in built])
    for each in built:
        if each.sha256:
            console.print(f"{each.sha256}  {each.archive}", soft_wrap=True)
            if each.report.reference:
                console.print(
                    f"whole runs of {each.manifest.library} judged by {each.report.reference}",
                    soft_wrap=True,
                )
        else:
            console.print(f"{each.target}: checks failed, so no archive was written", soft_wrap=True)


def _code(manifest: Manifest) -> int:
    driver = manifest.network.code_bytes if manifest.network else 0
    return sum(kernel.code_bytes for kernel in manifest.kernels) + driver


def _constants(manifest: Manifest) -> int:
    """In the library: weights that are beside it or come later do not count."""
    network = manifest.network
    embedded = network.weights_bytes if network and network.weights_mode == "embed" else 0
    return sum(kernel.constant_bytes for kernel in manifest.kernels) + embedded


def _arena(manifest: Manifest) -> int:
    """The network's, or the largest of the kernels' own."""
    if manifest.network is not None:
        return manifest.network.arena_bytes
    return max(kernel.arena_bytes for kernel in manifest.kernels)


def print_reports(console: Console, reports: Sequence[Report]) -> None:
    """One row for each kernel and emulated CPU."""
    table = Table(box=None, header_style="bold")
    for heading in ("kernel", "target", "cpu", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("error", "bound", "instructions", "on vectors"):
        table.add_column(heading, justify="right")
    for report in reports:
        for row in report.rows:
            table.add_row(
                row.kernel,
                row.target,
                row.cpu,
                row.status,
                _number(row.error),
                _number(row.bound),
                "-" if row.insns is None else f"{row.insns:,}",
                _share(row.vector_insns, row.insns),
            )
    console.print(table)
    _print_problems(console, reports)
    for report in reports:
        for reason in dict.fromkeys(row.insns_reason for row in report.rows if row.insns_reason):
            console.print(f"{report.target}: instructions not counted: {reason}", soft_wrap=True)


SHOWN_MNEMONICS = 12


def print_histograms(console: Console, reports: Sequence[Report]) -> None:
    """For each kernel and CPU, the mnemonics that were executed most, with bars."""
    for report in reports:
        for row in report.rows:
            if not row.mnemonics or not row.insns:
                continue
            console.print(f"\n[bold]{row.kernel}[/bold] for {row.target} on {row.cpu}: {row.insns:,}")
            table = Table(box=None, show_header=False, padding=(0, 1))
            for justify in ("left", "right", "right", "left"):
                table.add_column(justify=justify)
            shown = list(row.mnemonics.items())[:SHOWN_MNEMONICS]
            rest = row.insns - sum(count for _, count in shown)
            for mnemonic, count in [*shown, (f"{len(row.mnemonics) - len(shown)} others", rest)]:
                if count:
                    bar = "█" * round(40 * count / row.insns)
                    table.add_row(mnemonic, f"{count:,}", _share(count, row.insns), bar)
            console.print(table)


def print_inspection(console: Console, found: Inspection) -> None:
    """A row for each operator, then one for each target, and every reason why something is missing."""
    table = Table(box=None, header_style="bold")
    for heading in ("operator", "nodes", "missing"):
        table.add_column(heading)
    missing = [each.op for each in found.missing]
    for op, count in found.operators.items():
        table.add_row(op, str(count), str(missing.count(op) or ""))
    console.print(table)
    told = f"{found.parameters:,} parameters of {found.parameter_bytes:,} bytes"
    console.print(f"{told}, {found.flops:,} floating-point operations", markup=False)
    if found.targets:
        console.print(_targets(found.targets))
    for node in found.missing:
        text = f"missing: node '{node.node}' ({node.op}): {node.reason}"
        console.print(text, markup=False, soft_wrap=True)
    for each in found.targets:
        if each.reason:
            console.print(f"not for {each.target}: {each.reason}", markup=False, soft_wrap=True)


def _targets(estimates: Sequence[Estimate]) -> Table:
    table = Table("target", box=None, header_style="bold")
    for heading in ("kernels", "calls", "operations", "weights' bytes", "arena bytes", "live at once"):
        table.add_column(heading, justify="right")
    for each in estimates:
        sizes = (each.flops, each.weights_bytes, each.arena_bytes, each.live_bytes)
        counts = (each.kernels, each.calls, *sizes)
        table.add_row(each.target, *("-" if each.reason else f"{count:,}" for count in counts))
    return table


def require(reports: Sequence[Report], *, skipped_too: bool) -> None:
    """CheckFailedError if a check failed, CheckSkippedError if one was due and did not run."""
    failed = sum(len(report.failed()) + len(report.broken()) for report in reports)
    skipped = sum(len(report.skipped()) for report in reports)
    if failed:
        raise CheckFailedError(f"{failed} check(s) failed; report.json has each")
    if skipped and skipped_too:
        raise CheckSkippedError(f"{skipped} check(s) were skipped, and --require-checks was given")


def _checks(report: Report) -> str:
    passed = sum(row.status == "pass" for row in report.rows)
    text = f"{passed} of {len(report.rows)} passed"
    skipped = len(report.skipped())
    return f"{text}, {skipped} skipped" if skipped else text


def _worst(report: Report) -> str:
    shares = [
        (row.error / row.bound if row.bound else 0.0, row)
        for row in report.rows
        if row.error is not None and row.bound is not None
    ]
    if not shares:
        return "-"
    share, row = max(shares, key=lambda pair: pair[0])
    return f"{share:.3f} ({row.kernel})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _share(part: int | None, whole: int | None) -> str:
    return "-" if part is None or not whole else f"{100 * part / whole:.1f} %"


def _print_problems(console: Console, reports: Sequence[Report]) -> None:
    """Each broken promise and failed check, how many were skipped for which reason, and what is known."""
    skipped: dict[str, Counter[str]] = {}
    known: dict[str, Counter[str]] = {}
    for report in reports:
        for broken in report.broken():
            text = f"broken promise: {report.library} for {report.target}: {broken.name}: {broken.detail}"
            console.print(text, soft_wrap=True, markup=False)
        for row in report.failed():
            console.print(_problem(row), soft_wrap=True, markup=False)
        for row in report.skipped():
            skipped.setdefault(row.reason, Counter())[report.target] += 1
        for row in report.rows:
            if row.quarantine:
                known.setdefault(f"{row.emulator}: {row.quarantine}", Counter())[report.target] += 1
    for bug, targets in known.items():
        text = f"{targets.total()} checks passed on {', '.join(targets)} in spite of a known bug of {bug}"
        console.print(text, soft_wrap=True, markup=False)
    for reason, targets in skipped.items():
        text = f"{targets.total()} checks skipped on {', '.join(targets)}: {reason}"
        console.print(text, soft_wrap=True, markup=False)


def _problem(row: Row) -> str:
    whose = {"kernel": "; the kernel's fault", "emulator": "; the emulator's fault"}.get(row.fault, "")
    return f"{row.status}: {row.kernel} for {row.target} on {row.cpu}: {row.reason}{whose}"
