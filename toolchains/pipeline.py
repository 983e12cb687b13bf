"""The conductor: the one module that knows kernels and toolchains, and joins their steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from kernels import whole
from kernels.errors import InputError
from kernels.graph import optimise
from kernels.manifest import Manifest
from kernels.models import read_model
from kernels.models.oracle import Composition, Oracle
from kernels.plan import Plan
from kernels.program import Model, Network, program_of
from toolchains.archive import file_sha256, make_archive
from toolchains.cache import ROOT, Store, code_digest, digest, versions
from toolchains.checking import Checking, Remembered, sample
from toolchains.events import Event, Work
from toolchains.inspection import inspect_library, inspect_runs
from toolchains.making import VERSION, Options, make, members, write_json
from toolchains.progress import Progress
from toolchains.report import Report
from toolchains.scratch import alone, exchange, scratch, write_whole
from toolchains.share import Share
from toolchains.target import Target

STAMP = "stamp.json"
REFERENCE = "reference.npz"
"""What a whole network was judged against, in its build folder."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a build left: the archive, its hash, what it holds, how its checks went; and its last event."""

    target: str
    archive: Path
    sha256: str
    manifest: Manifest
    report: Report
    ended: Event | None = None

    @property
    def cached(self) -> bool:
        """Whether all of it was taken from the last time."""
        return self.ended is not None and self.ended.outcome == "cached"


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What a build was made from; the hashes of its archive, if it has one, its report, and its files."""

    key: str
    sha256: str
    report: str
    files: dict[str, str]


def build(
    model: Model,
    target: Target,
    options: Options,
    progress: Progress,
    oracle: Oracle | None = None,
    share: Share | None = None,
) -> Built:
    """Generate, compile, link, check and archive one library for one target.

    A build whose inputs have not changed is taken from the last time, or from another process
    that is at it. A failed check is in the report, and the archive is then not written. The
    `oracle` says what a whole network is judged against; without one that is composed of the
    operators' own references. The `share` of the processors is all of them where none is given.
    """
    name = program_of(model).name
    with progress.work("build", name, target.name) as work:
        plan = options.plan(model, target)

        def waiting() -> None:
            progress.say(f"{name} for {target.name}: another kernfit is at it: waiting for its result")

        share = share or Share(options.jobs)
        with alone(options.build, f"{target.name}-{name}", waiting):
            built = _build(model, plan, target, options, progress, oracle or Composition(), share, work)
        report = built.report
        if report.failed() or report.broken():
            work.outcome = "failed"
        elif report.skipped():
            work.outcome = "skipped"
        passed = sum(row.status == "pass" for row in report.rows)
        work.detail = f"{passed} of {len(report.rows)} checks passed"
    return msgspec.structs.replace(built, ended=work.ended)


def _build(
    model: Model,
    plan: Plan,
    target: Target,
    options: Options,
    progress: Progress,
    oracle: Oracle,
    share: Share,
    work: Work,
) -> Built:
    network = model if isinstance(model, Network) else None
    surroundings = (
        target,
        code_digest("kernels", "toolchains"),
        versions(),
        options.engine.identity(target),
    )
    key = digest(plan, *surroundings, oracle.identity if network else "", options.guards)
    place = options.build / target.name / plan.library
    archive = options.out / f"{plan.library}-{VERSION}-{target.name}.tar.gz"
    report_path = archive.with_name(archive.name.removesuffix(".tar.gz") + ".report.json")
    last = _last(place, key, archive, report_path)
    if last is not None:
        work.outcome = "cached"
        manifest, report, sha256 = last
        return Built(target=target.name, archive=archive, sha256=sha256, manifest=manifest, report=report)

    with scratch(options.build, f"{plan.library}-{target.name}") as folder:
        manifest = make(plan, target, options, folder, progress, network, share)
        write_whole(folder / "plan.json", msgspec.json.format(msgspec.json.encode(plan), indent=1))
        reference = None
        if network is not None:
            reference = oracle.ask(network)
            whole.save(reference, folder / REFERENCE)
        checking = Checking(
            plan=plan,
            target=target,
            engine=options.engine,
            share=share,
            place=folder,
            build=options.build,
            only=sample(plan) if options.checks == "sample" else None,
            remembered=Remembered(Store(options.build / "cache" / "checks"), digest(*surroundings), folder),
            reference=reference,
            guards=options.guards,
        )
        report = checking.run(progress)
        inspections = (
            *inspect_library(folder, manifest, target, (ROOT, folder.resolve())),
            *inspect_runs(report.rows, manifest, target),
        )
        report = msgspec.structs.replace(report, inspections=inspections)
        sha256 = ""
        if not report.failed() and not report.broken():
            sha256 = make_archive(
                archive,
                archive.name.removesuffix(".tar.gz"),
                {name: folder / name for name in members(plan)},
            )
            work.bytes = archive.stat().st_size
        text = msgspec.json.format(msgspec.json.encode(report), indent=1)
        stamp = Stamp(
            key=key,
            sha256="" if report.skipped() else sha256,
            report=hashlib.sha256(text).hexdigest(),
            files={path.name: file_sha256(path) for path in sorted(folder.iterdir())},
        )
        write_json(folder / STAMP, stamp)
        write_whole(report_path, text)
        exchange(folder, place)
    return Built(target=target.name, archive=archive, sha256=sha256, manifest=manifest, report=report)


def bring(path: Path, dims: Mapping[str, int] | None = None) -> Model:
    """A model as it is built: a listing as it is, a network after all passes."""
    model = read_model(path, dims)
    return optimise(model) if isinstance(model, Network) else model


def _last(place: Path, key: str, archive: Path, report: Path) -> tuple[Manifest, Report, str] | None:
    """What the last build left, if it was made from the same, was whole, and still is."""
    try:
        stamp = msgspec.json.decode((place / STAMP).read_bytes(), type=Stamp)
        if stamp.key != key or not stamp.sha256 or file_sha256(archive) != stamp.sha256:
            return None
        if file_sha256(report) != stamp.report or _damaged(place, stamp):
            return None
        manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
        return manifest, msgspec.json.decode(report.read_bytes(), type=Report), stamp.sha256
    except (OSError, msgspec.DecodeError):
        return None


def _damaged(place: Path, stamp: Stamp) -> list[str]:
    """Files of a build folder that are not as they were when the build ended."""
    return [
        name
        for name, sha256 in stamp.files.items()
        if not (place / name).is_file() or file_sha256(place / name) != sha256
    ]


def check_all(
    models: Sequence[Model],
    targets: Sequence[Target],
    options: Options,
    progress: Progress,
    *,
    histogram: bool = False,
) -> list[Report]:
    """Run the checks of each library that is already in the build folder."""
    return [
        check_again(model, target, options, progress, histogram=histogram)
        for model in models
        for target in targets
    ]


def check_again(
    model: Model, target: Target, options: Options, progress: Progress, *, histogram: bool = False
) -> Report:
    """Run the checks of the library that is already in the build folder."""
    name = program_of(model).name
    place = options.build / target.name / name

    def waiting() -> None:
        progress.say(f"{name} for {target.name}: another kernfit is at it: waiting for it")

    with alone(options.build, f"{target.name}-{name}", waiting):
        return _check_again(name, place, target, options, progress, histogram=histogram)


def _check_again(
    name: str, place: Path, target: Target, options: Options, progress: Progress, *, histogram: bool
) -> Report:
    try:
        stamp = msgspec.json.decode((place / STAMP).read_bytes(), type=Stamp)
        plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
        reference = whole.load(place / REFERENCE) if plan.network else None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise InputError(
            f"nothing to check: {name} for {target.name} has not been built; run `invoke build`"
        ) from error
    if damaged := _damaged(place, stamp):
        raise InputError(
            f"{place / damaged[0]} is not as it was built; run `invoke build`, which makes it again"
        )
    with progress.work("image", name, target.name) as work:
        options.engine.prepare(target, work.output)
    checking = Checking(
        plan=plan,
        target=target,
        engine=options.engine,
        share=Share(options.jobs),
        place=place,
        build=options.build,
        histogram=histogram,
        reference=reference,
        guards=options.guards,
    )
    return checking.run(progress)
