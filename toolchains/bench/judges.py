"""What tells how good the candidates of a search are: time here, time on a board, instructions."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Literal, Protocol

import msgspec

from kernels import check
from kernels.errors import EngineError, MissingToolError, ResourceError
from kernels.plan import Kernel, Plan
from toolchains import processor
from toolchains.bench.contest import OURS, ContestRequest, Measured
from toolchains.bench.running import environment
from toolchains.board import Board
from toolchains.checking import Checking
from toolchains.emulate import RUNNER_FAULTS
from toolchains.limits import limit
from toolchains.making import Options
from toolchains.native import runs_here
from toolchains.process import Finished, run
from toolchains.progress import Progress
from toolchains.share import Share
from toolchains.target import Target

By = Literal["time", "instructions"]

SECONDS = 0.6
BOARD_SECONDS = 1.0
"""Rounds take so long, where not the least number of them takes longer; on a board they include
the reading of inputs."""
SIGNALLED = 128
"""A shell's status of what a signal ended is this and the signal's number."""


class Candidates(msgspec.Struct, frozen=True, kw_only=True):
    """Kernels of one library that compute the same, the analytical model's first.

    The library and its runner lie in `place`.
    """

    plan: Plan
    place: Path

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(kernel.name for kernel in self.plan.kernels)

    def kernels(self, names: Sequence[str]) -> list[Kernel]:
        """Some of them, in the order of their names."""
        known = {kernel.name: kernel for kernel in self.plan.kernels}
        return [known[name] for name in names]


class Judge(Protocol):
    """`by` says what is measured, `cpu` on which processor, in the words of a record."""

    by: By
    cpu: str

    def costs(self, candidates: Candidates, names: Sequence[str]) -> dict[str, float]:
        """What each of the named costs; those are left out whose result is wrong.

        EngineError or MissingToolError if nothing can be measured.
        """


@contextmanager
def find_judge(target: Target, options: Options, host: str) -> Iterator[Judge]:
    """Of the three the one that knows most: the named board, this machine, or QEMU."""
    if host:
        with Board(host) as board:
            yield OnBoard(target, board)
    elif runs_here(target):
        yield Here(target)
    else:
        yield Counted(target, options)


class Here:
    """Time on this machine, contestants in turn in one process."""

    by: By = "time"

    def __init__(self, target: Target) -> None:
        """The target is one that this machine runs."""
        self.cpu = processor.here()
        self._target = target

    def costs(self, candidates: Candidates, names: Sequence[str]) -> dict[str, float]:
        """Median seconds."""
        lines: list[str] = []
        called = dict(zip((OURS, *names[1:]), names, strict=True))
        request = ContestRequest(
            target=self._target,
            plan=candidates.plan,
            library=str(candidates.place / f"lib{candidates.plan.library}.so"),
            contests=(called,),
            seconds=SECONDS,
            core=max(os.sched_getaffinity(0)),
            peers=(),
        )
        path = candidates.place / "contest.json"
        path.write_bytes(msgspec.json.encode(request))
        ended = run(
            [sys.executable, "-m", "toolchains.bench.contest", str(path)],
            timeout=limit("measure"),
            env=environment(self._target),
            on_line=lines.append,
        )
        if ended.status != 0:
            raise EngineError(f"the contest ended with status {ended.status}: {ended.output}")
        figures = msgspec.json.decode(lines[-1], type=Measured).figures
        return {name: figures[title].seconds for title, name in called.items() if title in figures}


class Counted:
    """Instructions on the first processor that QEMU emulates for the target."""

    by: By = "instructions"

    def __init__(self, target: Target, options: Options) -> None:
        """MissingToolError if there is no such processor."""
        if not target.qemu.cpus:
            raise MissingToolError(
                f"{target.name}: this machine does not run it, and no QEMU does: name a board by --host"
            )
        self.cpu = f"QEMU {target.qemu.cpus[0]}"
        self._target = target.on_first_emulated()
        self._options = options

    def costs(self, candidates: Candidates, names: Sequence[str]) -> dict[str, float]:
        """Instructions of one call."""
        checking = Checking(
            plan=candidates.plan,
            target=self._target,
            engine=self._options.engine,
            share=Share(self._options.jobs),
            place=candidates.place,
            build=self._options.build,
            only=names,
        )
        rows = {row.kernel: row for row in checking.run(Progress(quiet=True)).rows}
        own = rows[names[0]]
        if own.insns is None:
            why = own.insns_reason or own.reason
            raise MissingToolError(f"{self._target.name}: nothing counts its instructions: {why}")
        return {
            name: float(rows[name].insns or 0)
            for name in names
            if rows[name].status == "pass" and rows[name].insns
        }


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner says of a kernel that it timed (runner/timing.c); `first` had its output first."""

    fault: int
    first: int
    repeats: int
    samples: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """The median of a call."""
        return median(self.samples) / self.repeats / 1e9


class OnBoard:
    """Time on a board, contestants in turn in one run of the runner."""

    by: By = "time"

    def __init__(self, target: Target, board: Board) -> None:
        """The board is entered."""
        self.cpu = processor.name_of(board.cpuinfo)
        self._target, self._board = target, board
        self._tried = False

    def costs(self, candidates: Candidates, names: Sequence[str]) -> dict[str, float]:
        """Median seconds of those whose outputs, brought back, are right."""
        kernels = candidates.kernels(names)
        arrays = check.make_inputs(kernels[0], self._target)
        inputs: dict[bytes, str] = {}
        words: list[str] = []
        for number, kernel in enumerate(kernels):
            data = check.input_bytes(kernel, arrays, self._target)
            words += [kernel.name, inputs.setdefault(data, f"{number}.in"), f"{number}.out"]
        runner = (candidates.place / "runner").read_bytes()
        self._board.hold({"runner": runner, **{name: data for data, name in inputs.items()}})
        if not self._tried:
            self._try()
            self._tried = True
        budget = f"{round(BOARD_SECONDS * 1e9):x}"
        ended = self._board.run(["./runner", "time", budget, *words], limit("measure"))
        if ended.status != 0:
            raise self._failed(ended)
        timings = _timings(ended.output, names, self._board.host)
        firsts = sorted({each.first for each in timings if each.fault == 0})
        outputs = self._board.take([f"{number}.out" for number in firsts]) if firsts else {}
        right = {
            number
            for number in firsts
            if check.judge(kernels[number], arrays, outputs[f"{number}.out"], self._target).passed
        }
        return {
            name: each.seconds
            for name, each in zip(names, timings, strict=True)
            if each.fault == 0 and each.first in right
        }

    def _try(self) -> None:
        """EngineError unless the board runs the target's code, with vectors that are wide enough."""
        cpu = self._target.cpu
        ended = self._board.run(["./runner", *(["vector"] if cpu.scalable else [])], limit("probe"))
        if 0 < ended.status <= SIGNALLED:
            reason = (ended.output.splitlines() or [""])[-1]
            raise EngineError(
                f"{self._board.host}: {self.cpu} runs no program for {self._target.name}: {reason}"
            )
        if ended.status:
            raise self._failed(ended)
        if cpu.scalable and int(ended.output.split()[-1], 16) < cpu.vector_bits:
            raise EngineError(
                f"{self._board.host}: its vectors are shorter than the {cpu.vector_bits} bits "
                f"of {self._target.name}"
            )

    def _failed(self, ended: Finished) -> EngineError | ResourceError:
        """Why a run of the runner failed."""
        host, number = self._board.host, ended.status - SIGNALLED
        if number == signal.SIGILL:
            return EngineError(f"{host}: {self.cpu} lacks an instruction of {self._target.name}")
        if number == signal.SIGKILL:
            return ResourceError(f"{host}: it is out of memory for operands of this size")
        if number > 0:
            return EngineError(f"{host}: the runner ended by {signal.Signals(number).name}")
        if ended.status == 3:  # noqa: PLR2004 - FAULT_FILES
            return ResourceError(f"{host}: {RUNNER_FAULTS[3]}; is its disk full?")
        return EngineError(f"{host}: the runner ended with status {ended.status}: {ended.output}")


def _timings(output: str, names: Sequence[str], host: str) -> list[Timing]:
    """The runner's lines, one for each kernel, among whatever the board's shell says."""
    lines = {line.partition(" ")[0]: line.split()[1:] for line in output.splitlines()}
    found = []
    for name in names:
        if name not in lines:
            raise EngineError(f"{host}: the runner said nothing of {name}: {output}")
        fault, first, repeats, *samples = (int(number, 16) for number in lines[name])
        found.append(Timing(fault=fault, first=first, repeats=repeats, samples=tuple(samples)))
        if fault == 0 and median(samples) <= 0:
            raise EngineError(f"{host}: its clock does not see a run of {name}")
    return found
