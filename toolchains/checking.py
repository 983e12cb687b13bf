"""Runs every kernel of a linked library on every processor of its target, and judges."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from kernels import check
from kernels.errors import EngineError
from kernels.plan import Kernel, Plan
from toolchains.archive import write_whole
from toolchains.disassembly import Function, functions, mnemonics, vector_instructions
from toolchains.emulate import EmulateRequest, Ended, Run
from toolchains.engines import Engine
from toolchains.progress import Progress
from toolchains.report import Report, Row
from toolchains.target import Target


def run_checks(
    plan: Plan,
    target: Target,
    engine: Engine,
    jobs: int,
    place: Path,
    progress: Progress,
    *,
    histogram: bool = False,
) -> Report:
    """Run every kernel of a linked library on every emulated CPU of its target, and judge.

    `histogram` also divides the counted instructions by their mnemonics.
    """
    rows: list[Row] = []
    folder = place / "check"
    folder.mkdir(exist_ok=True)
    kernels = {kernel.name: kernel for kernel in plan.kernels}
    try:
        for name in ("runner", "counter.so"):
            shutil.copy(place / name, folder / name)
        code = functions(place / "runner", target)
        for kernel in plan.kernels:
            arrays = check.make_inputs(kernel, target)
            (folder / f"{kernel.name}.in").write_bytes(check.input_bytes(kernel, arrays, target))
        with progress.bar(f"{target.name}: checking", len(kernels) * len(target.checked_on)) as bar:
            for cpu in target.checked_on:
                for kernel in plan.kernels:
                    (folder / f"{kernel.name}.out").unlink(missing_ok=True)

                def judged(line: str, cpu: str = cpu) -> None:
                    if line.startswith("{"):
                        ended = msgspec.json.decode(line, type=Ended)
                        kernel = kernels[ended.kernel]
                        row = _row(kernel, target, cpu, ended, folder)
                        if ended.blocks is not None:
                            row = _counted(
                                row, ended.blocks, code[kernel.symbol], target, histogram=histogram
                            )
                        rows.append(row)
                        bar.advance(f"{row.kernel} {row.status}")

                longest_first = sorted(plan.kernels, key=lambda kernel: -kernel.flops)
                request = EmulateRequest(
                    target=target,
                    cpu=cpu,
                    runner="runner",
                    counter="counter.so",
                    jobs=jobs,
                    runs=tuple(
                        Run(
                            kernel=kernel.name,
                            input=f"{kernel.name}.in",
                            output=f"{kernel.name}.out",
                            timeout=60 + kernel.flops / 2e6,
                            code=(code[kernel.symbol].start, code[kernel.symbol].end),
                        )
                        for kernel in longest_first
                    ),
                )
                path = folder / "emulate.json"
                write_whole(path, msgspec.json.encode(request))
                engine.run("toolchains.emulate", path, on_line=judged)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lost = len(kernels) * len(target.checked_on) - len(rows)
    if lost:
        raise EngineError(f"{target.name}: {lost} checks ended without a word on how they went")
    order = {kernel.name: number for number, kernel in enumerate(plan.kernels)}
    rows.sort(key=lambda row: (target.checked_on.index(row.cpu), order[row.kernel]))
    return Report(
        library=plan.library, target=target.name, engine=engine.identity(target), rows=tuple(rows)
    )


def _row(kernel: Kernel, target: Target, cpu: str, ended: Ended, folder: Path) -> Row:
    if ended.outcome != "ran":
        return Row(
            kernel=kernel.name,
            target=target.name,
            cpu=cpu,
            status=ended.outcome,
            reason=ended.reason,
            emulator=ended.emulator,
            insns_reason=ended.uncounted,
            vector_bits=ended.vector_bits or None,
        )
    output = (folder / f"{kernel.name}.out").read_bytes()
    verdict = check.judge(kernel, check.make_inputs(kernel, target), output, target)
    return Row(
        kernel=kernel.name,
        target=target.name,
        cpu=cpu,
        status="pass" if verdict.passed else "wrong",
        error=verdict.error,
        bound=verdict.bound,
        reason=verdict.reason,
        emulator=ended.emulator,
        insns_reason=ended.uncounted,
        vector_bits=ended.vector_bits or None,
    )


def _counted(
    row: Row,
    blocks: Iterable[tuple[int, int, int]],
    function: Function,
    target: Target,
    *,
    histogram: bool,
) -> Row:
    executed = list(function.executed(blocks))
    return msgspec.structs.replace(
        row,
        insns=sum(runs for _, runs in executed),
        vector_insns=vector_instructions(executed, target),
        mnemonics=mnemonics(executed) if histogram else None,
    )
