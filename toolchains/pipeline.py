"""The conductor: the one module that knows kernels and toolchains, and joins their steps."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kernels import whole
from kernels.errors import InputError
from kernels.graph import optimise
from kernels.manifest import Manifest
from kernels.models import read_model
from kernels.models.oracle import Composition, Oracle
from kernels.plan import Plan
from kernels.program import Model, Network
from toolchains.archive import file_sha256, make_archive, write_whole
from toolchains.cache import ROOT, Store, code_digest, digest, versions
from toolchains.checking import Checking, Remembered, sample
from toolchains.inspection import inspect_library, inspect_runs
from toolchains.making import VERSION, Options, make, members, write_json
from toolchains.progress import Progress
from toolchains.report import Report
from toolchains.target import Target

REFERENCE = "reference.npz"
"""What a whole network was judged against, in its build folder."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a build left: the archive, its hash, what it holds, and how its checks went."""

    target: str
    archive: Path
    sha256: str
    manifest: Manifest
    report: Report
    cached: bool
    seconds: float


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished build was made from, and the hash of its archive."""

    key: str
    sha256: str


def build(
    model: Model,
    target: Target,
    options: Options,
    progress: Progress,
    oracle: Oracle | None = None,
) -> Built:
    """Generate, compile, link, check and archive one library for one target.

    A build whose inputs have not changed is taken from the last time. A failed check is
    in the report, and the archive is then not written. The `oracle` says what a whole
    network is judged against; without one that is composed of the operators' own references.
    """
    started = time.monotonic()
    plan = options.plan(model, target)
    network = model if isinstance(model, Network) else None
    surroundings = (
        target,
        code_digest("kernels", "toolchains"),
        versions(),
        options.engine.identity(target),
    )
    oracle = oracle or Composition()
    key = digest(plan, *surroundings, oracle.identity if network else "", options.guards)
    place = options.build / target.name / plan.library
    archive = options.out / f"{plan.library}-{VERSION}-{target.name}.tar.gz"
    report_path = archive.with_name(archive.name.removesuffix(".tar.gz") + ".report.json")
    last = _last(place, key, archive, report_path)
    if last is not None:
        manifest, report = last
        return Built(
            target=target.name,
            archive=archive,
            sha256=file_sha256(archive),
            cached=True,
            manifest=manifest,
            report=report,
            seconds=time.monotonic() - started,
        )

    with _scratch(place) as work:
        manifest = make(plan, target, options, work, progress, network)
        write_whole(work / "plan.json", msgspec.json.format(msgspec.json.encode(plan), indent=1))
        reference = None
        if network is not None:
            reference = oracle.ask(network)
            whole.save(reference, work / REFERENCE)
        checking = Checking(
            plan=plan,
            target=target,
            engine=options.engine,
            jobs=options.jobs,
            place=work,
            only=sample(plan) if options.checks == "sample" else None,
            remembered=Remembered(Store(options.build / "cache" / "checks"), digest(*surroundings), work),
            reference=reference,
            guards=options.guards,
        )
        report = checking.run(progress)
        inspections = (
            *inspect_library(work, manifest, target, (ROOT, work.resolve())),
            *inspect_runs(report.rows, manifest, target),
        )
        report = msgspec.structs.replace(report, inspections=inspections)
        sha256 = ""
        if not report.failed() and not report.broken():
            sha256 = make_archive(
                archive,
                archive.name.removesuffix(".tar.gz"),
                {name: work / name for name in members(plan)},
            )
            if not report.skipped():
                write_json(work / "stamp.json", Stamp(key=key, sha256=sha256))
        write_whole(report_path, msgspec.json.format(msgspec.json.encode(report), indent=1))
        _replace(work, place)
    return Built(
        target=target.name,
        archive=archive,
        sha256=sha256,
        cached=False,
        manifest=manifest,
        report=report,
        seconds=time.monotonic() - started,
    )


def bring(path: Path, dims: Mapping[str, int] | None = None) -> Model:
    """A model as it is built: a listing as it is, a network after all passes."""
    model = read_model(path, dims)
    return optimise(model) if isinstance(model, Network) else model


def _last(place: Path, key: str, archive: Path, report: Path) -> tuple[Manifest, Report] | None:
    try:
        stamp = msgspec.json.decode((place / "stamp.json").read_bytes(), type=Stamp)
        if stamp.key != key or file_sha256(archive) != stamp.sha256:
            return None
        manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
        return manifest, msgspec.json.decode(report.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError):
        return None


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A folder beside `place` that vanishes unless it was renamed away."""
    work = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(work: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    if place.exists():
        place.rename(old)
    work.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def check_again(
    model: Model, target: Target, options: Options, progress: Progress, *, histogram: bool = False
) -> Report:
    """Run the checks of the library that is already in the build folder."""
    name = (model.program if isinstance(model, Network) else model).name
    place = options.build / target.name / name
    try:
        plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
        reference = whole.load(place / REFERENCE) if plan.network else None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise InputError(
            f"nothing to check: {name} for {target.name} has not been built; run `invoke build`"
        ) from error
    options.engine.prepare(target, progress.detail)
    checking = Checking(
        plan=plan,
        target=target,
        engine=options.engine,
        jobs=options.jobs,
        place=place,
        histogram=histogram,
        reference=reference,
        guards=options.guards,
    )
    return checking.run(progress)
