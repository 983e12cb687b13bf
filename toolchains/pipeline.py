"""The conductor: the one module that knows kernels and toolchains, and joins their steps."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from kernels.codegen.header import header
from kernels.codegen.package import package_files
from kernels.codegen.request import Request
from kernels.errors import EngineError, InputError
from kernels.graph.planning import plan as make_plan
from kernels.manifest import Manifest, Measured, manifest_of
from kernels.plan import Kernel, Plan
from kernels.program import Program
from kernels.tuning import read_records
from toolchains.archive import make_archive, write_whole
from toolchains.cache import ROOT, Store, code_digest, digest, versions
from toolchains.checking import Checking, Checks, Remembered, sample
from toolchains.engines import Engine
from toolchains.inspection import inspect_library, inspect_runs, measure
from toolchains.link import LinkRequest
from toolchains.progress import Progress
from toolchains.report import Report
from toolchains.target import Target

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
"""kernfit's own version."""
LLVM_OF_TVM = "22"
"""The LLVM inside the pinned apache-tvm wheel (`target.llvm_version_major`)."""
KERNELS_PER_PROCESS = 6
"""A code generation process takes 1.5 s to begin, and 0.15 s for each kernel."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to build: engine, number of parallel jobs, where archives go, where the rest.

    Of the checks, all are made, or those of a sample (`checking.sample`). `records` are
    folders of records of tuning that go before those that ship. `winograd` allows algorithms
    that are faster and less accurate.
    """

    engine: Engine
    jobs: int
    out: Path
    build: Path = ROOT / "build"
    checks: Checks = "all"
    records: tuple[Path, ...] = ()
    winograd: bool = False

    def plan(self, program: Program, target: Target) -> Plan:
        """The plan of a program for a target, by these records and with these algorithms."""
        records = read_records(target.name, self.records)
        return make_plan(program, target, records, winograd=self.winograd)


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


def build(program: Program, target: Target, options: Options, progress: Progress) -> Built:
    """Generate, compile, link, check and archive one library for one target.

    A build whose inputs have not changed is taken from the last time. A failed check is
    in the report, and the archive is then not written.
    """
    started = time.monotonic()
    plan = options.plan(program, target)
    surroundings = (
        target,
        code_digest("kernels", "toolchains"),
        versions(),
        options.engine.identity(target),
    )
    key = digest(plan, *surroundings)
    place = options.build / target.name / plan.library
    archive = options.out / f"{plan.library}-{VERSION}-{target.name}.tar.gz"
    report_path = archive.with_name(archive.name.removesuffix(".tar.gz") + ".report.json")
    last = _last(place, key, archive, report_path)
    if last is not None:
        manifest, report = last
        return Built(
            target=target.name,
            archive=archive,
            sha256=_sha256(archive),
            cached=True,
            manifest=manifest,
            report=report,
            seconds=time.monotonic() - started,
        )

    with _scratch(place) as work:
        manifest = make(plan, target, options, work, progress)
        write_whole(work / "plan.json", msgspec.json.format(msgspec.json.encode(plan), indent=1))
        checking = Checking(
            plan=plan,
            target=target,
            engine=options.engine,
            jobs=options.jobs,
            place=work,
            only=sample(plan) if options.checks == "sample" else None,
            remembered=Remembered(Store(options.build / "cache" / "checks"), digest(*surroundings), work),
        )
        report = checking.run(progress)
        inspections = (
            *inspect_library(work, manifest, target, (ROOT, work.resolve())),
            *inspect_runs(report.rows, manifest, target),
        )
        report = msgspec.structs.replace(report, inspections=inspections)
        sha256 = ""
        if not report.failed() and not report.broken():
            members = [
                f"lib{plan.library}.a",
                f"lib{plan.library}.so",
                f"{plan.library}.h",
                "manifest.json",
                *package_files(plan, VERSION),
            ]
            sha256 = make_archive(
                archive, archive.name.removesuffix(".tar.gz"), {name: work / name for name in members}
            )
            if not report.skipped():
                _write(work / "stamp.json", Stamp(key=key, sha256=sha256))
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


def make(plan: Plan, target: Target, options: Options, work: Path, progress: Progress) -> Manifest:
    """Fill the folder `work` with the library and the runner of a plan, and describe them."""
    title = f"{plan.library} for {target.name}"
    progress.step(f"{title}: {len(plan.kernels)} kernels, engine {options.engine.name}")
    options.engine.prepare(target, progress.detail)
    _compile(plan, target, options, work, progress)
    manifest = _describe(plan, target, work)
    progress.step(f"{title}: linking")
    request = LinkRequest(plan=plan, target=target, compiler=options.engine.compiler)
    path = _write(work / "link.json", request)
    options.engine.run("toolchains.link", path, target)
    path.unlink()
    return manifest


def _last(place: Path, key: str, archive: Path, report: Path) -> tuple[Manifest, Report] | None:
    try:
        stamp = msgspec.json.decode((place / "stamp.json").read_bytes(), type=Stamp)
        if stamp.key != key or _sha256(archive) != stamp.sha256:
            return None
        manifest = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
        return manifest, msgspec.json.decode(report.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError):
        return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, value: Any) -> Path:
    write_whole(path, msgspec.json.encode(value))
    return path


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


# -- compiling -----------------------------------------------------------------------


def _compile(plan: Plan, target: Target, options: Options, work: Path, progress: Progress) -> None:
    """Fill `work` with the objects of all kernels, from the cache or by code generation."""
    store = Store(options.build / "cache" / "objects")
    keys = {kernel.symbol: _kernel_key(kernel, target) for kernel in plan.kernels}
    missing = [kernel for kernel in plan.kernels if not _fetch(store, keys[kernel.symbol], kernel, work)]
    if not missing:
        progress.step(f"{plan.library} for {target.name}: all {len(plan.kernels)} kernels were cached")
        return
    count = max(1, min(options.jobs, -(-len(missing) // KERNELS_PER_PROCESS)))
    kernels = {kernel.symbol: kernel for kernel in missing}

    with progress.bar(f"{plan.library} for {target.name}: compiling", len(missing)) as bar:

        def finished(line: str) -> None:
            if line in kernels:
                for suffix in (".o", ".frame.o"):
                    data = (work / f"{line}{suffix}").read_bytes()
                    store.put(digest(keys[line], suffix), data)
                bar.advance(kernels[line].name)

        def generate(number: int) -> None:
            request = Request(target=target, kernels=tuple(missing[number::count]), out=".")
            path = _write(work / f"codegen{number}.json", request)
            options.engine.run("kernels.codegen", path, target, on_line=finished)
            path.unlink()

        parallel(generate, range(count), options.engine.close)
    lost = [kernel.name for kernel in missing if not (work / f"{kernel.symbol}.o").is_file()]
    if lost:
        raise EngineError(f"code generation ended without an object for {', '.join(lost)}")


def _kernel_key(kernel: Kernel, target: Target) -> str:
    return digest(kernel, target.cpu, target.llvm, target.pointer_bits, code_digest("kernels"), versions())


def _fetch(store: Store, key: str, kernel: Kernel, work: Path) -> bool:
    parts = {suffix: store.get(digest(key, suffix)) for suffix in (".o", ".frame.o")}
    for suffix, data in parts.items():
        if data is None:
            return False
        (work / f"{kernel.symbol}{suffix}").write_bytes(data)
    return True


def parallel(function: Callable[[Any], None], items: Any, stop: Callable[[], None]) -> None:
    """Call the function on every item at once; after a failure, `stop` ends the others."""
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        pending = [pool.submit(function, item) for item in items]
        try:
            for each in pending:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _describe(plan: Plan, target: Target, work: Path) -> Manifest:
    """Write the manifest, the header, and what else a C developer finds in the archive."""
    measured: dict[str, Measured] = {
        kernel.symbol: measure(work, kernel.symbol, target) for kernel in plan.kernels
    }
    tools = versions()
    manifest = manifest_of(
        plan,
        target,
        measured,
        {
            "kernfit": VERSION,
            "tvm": tools["apache-tvm"],
            "llvm": LLVM_OF_TVM,
            "zig": tools["ziglang"],
        },
    )
    texts = {f"{plan.library}.h": header(plan, target, VERSION), **package_files(plan, VERSION)}
    for name, text in texts.items():
        (work / name).write_text(text, encoding="utf-8")
    (work / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return manifest


def check_again(
    program: Program, target: Target, options: Options, progress: Progress, *, histogram: bool = False
) -> Report:
    """Run the checks of the library that is already in the build folder."""
    place = options.build / target.name / program.name
    try:
        plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            f"nothing to check: {program.name} for {target.name} has not been built; run `invoke build`"
        ) from error
    options.engine.prepare(target, progress.detail)
    checking = Checking(
        plan=plan,
        target=target,
        engine=options.engine,
        jobs=options.jobs,
        place=place,
        histogram=histogram,
    )
    return checking.run(progress)
