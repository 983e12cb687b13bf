"""How long a build takes: ResNet-50's library from nothing, and again when nothing has changed."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import msgspec

from kernels.errors import CheckFailedError, EngineError
from kernels.models import catalog, read_listing
from toolchains import pipeline, processor
from toolchains.cache import ROOT
from toolchains.making import Options, make
from toolchains.process import run
from toolchains.progress import Progress
from toolchains.target import Target

MODEL = "resnet50"
CACHED = ", cached"
"""How `invoke build` ends the line of a library that it took from the last time."""
TIMEOUT = 600.0


class Building(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds by the clock: `cold` to plan, generate, compile and link, with so many `jobs`.

    `again` is a whole `invoke build` when nothing has changed, Python's start included. What else
    the machine had to do meanwhile counts too.
    """

    cold: float
    again: float
    jobs: int
    engine: str
    cpu: str
    date: str


def measure(
    target: Target, options: Options, progress: Progress, date: str, model: Path | None = None
) -> Building:
    """Build a listing (ResNet-50's) in an empty folder, and twice in the usual one.

    CheckFailedError if a check failed.
    """
    model = model or catalog()[MODEL]
    program = read_listing(model)
    progress.step(f"building {program.name} for {target.name} from nothing")
    options.engine.prepare(target, progress.detail)
    with tempfile.TemporaryDirectory() as folder:
        empty = msgspec.structs.replace(options, build=Path(folder), winograd=False)
        started = time.monotonic()
        work = Path(folder) / "work"
        work.mkdir()
        make(empty.plan(read_listing(model), target), target, empty, work, progress)
        cold = time.monotonic() - started
    usual = msgspec.structs.replace(options, checks="all", winograd=False, records=())
    if pipeline.build(program, target, usual, progress).report.failed():
        raise CheckFailedError(f"{program.name} for {target.name}: a check failed; see `invoke check`")
    started = time.monotonic()
    words = ("--arch", target.name, "--model", str(model), "--engine", options.engine.name)
    command = [sys.executable, "-m", "invoke", "build", *words, "--out", str(options.out.resolve())]
    ended = run(command, timeout=TIMEOUT, cwd=ROOT)
    again = time.monotonic() - started
    if ended.status != 0 or CACHED not in ended.output:
        raise EngineError(
            f"the second build of {program.name} was not taken from the first: {ended.output}"
        )
    return Building(
        cold=cold,
        again=again,
        jobs=options.jobs,
        engine=options.engine.name,
        cpu=processor.here(),
        date=date,
    )
