"""What a task works on, as the words of its command line name it: targets, models, engine, options."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernels.errors import UsageError
from kernels.models.oracle import Oracle, oracle_for
from kernels.program import Model, program_of
from toolchains.cache import ROOT
from toolchains.engines.choose import choose_engine
from toolchains.events import Journal
from toolchains.machine import processors
from toolchains.making import Options
from toolchains.pipeline import bring
from toolchains.progress import Progress
from toolchains.target import Target, all_targets, find_targets
from toolchains.torch_program import find_models
from toolchains.words import parse_dims, parse_jobs

LOGS = ROOT / "build" / "logs"


@dataclass(frozen=True, kw_only=True)
class Session:
    """`paths` are the files of the models, in order, and `dims` the sizes that they were read with."""

    targets: tuple[Target, ...]
    models: tuple[Model, ...]
    paths: tuple[Path, ...]
    dims: Mapping[str, int]
    options: Options
    progress: Progress

    def oracles(self) -> dict[str, Oracle]:
        """What judges each network's whole runs, by its name."""
        pairs = zip(self.models, self.paths, strict=True)
        return {program_of(model).name: oracle_for(path, self.dims) for model, path in pairs}


@contextmanager
def opened(
    arch: str,
    model: str,
    engine: str,
    jobs: str,
    out: str,
    *,
    verbose: bool,
    records: str = "",
    dim: Iterable[str] | None = None,
) -> Iterator[Session]:
    """A session with the engine at hand until its end; UsageError and InputError for wrong words."""
    if not arch:
        raise UsageError(f"say which target: --arch {', --arch '.join(all_targets())}, or --arch all")
    at_once = parse_jobs(jobs) if jobs else processors()
    targets = tuple(find_targets(arch))
    journal = Journal(LOGS)
    with _telling(journal), journal.work("task", detail=" ".join(sys.argv[1:])):
        progress = Progress(verbose=verbose, journal=journal)
        paths, dims = find_models(model, progress), parse_dims(dim or ())
        models = tuple(bring(path, dims) for path in paths)
        runs_on, why = choose_engine(engine)
        progress.say(why)
        options = Options(
            engine=runs_on,
            jobs=at_once,
            out=Path(out),
            records=tuple(Path(word) for word in records.split(",") if word),
        )
        try:
            yield Session(
                targets=targets, models=models, paths=paths, dims=dims, options=options, progress=progress
            )
        finally:
            runs_on.close()
            if journal.trouble:
                progress.say(f"the log is not whole: {journal.trouble}")


@contextmanager
def _telling(journal: Journal) -> Iterator[None]:
    """What fails says where its log is."""
    try:
        yield
    except Exception as error:
        if journal.path is not None:
            error.add_note(
                f"events: {journal.path}; what tools printed: {journal.path.with_suffix('.txt')}"
            )
        raise
