"""kernfit's tasks: each parses its words, calls one function and prints what it gives."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)  # else Invoke's: each task compiles all anew

from toolchains import signals

signals.arm()

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from invoke.context import Context
from invoke.tasks import task as invoke_task
from rich.console import Console
from rich.markup import escape

from kernels import models as model_files
from kernels.errors import InputError, MissingToolError, as_known, told
from toolchains.interruption import leave
from toolchains.progress import Progress
from toolchains.target import find_target, find_targets

OUT = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
ROOT = Path(__file__).parent


def task(**options: Any) -> Callable[[Callable[..., None]], Any]:
    """An Invoke task that ends with the exit statuses of the README's table."""

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            signals.expect()
            try:
                function(*args, **kwargs)
            except Exception as error:
                known = as_known(error)
                if known is None or known.status == 1 or signals.status():
                    raise
                ERR.print(f"[red]error:[/red] {escape(told(known))}")
                raise SystemExit(known.status) from error
            finally:
                if status := signals.status():
                    leave(status, "interrupted: nothing half-written is left")

        return invoke_task(**options)(guarded)

    return decorate


ARCH = "target, several with commas between, or 'all'; see `invoke targets`"
MODEL = (
    "a model (.onnx), a torch program (package.module:factory), a listing (.toml) or a name of the "
    "catalogue, several with commas, or 'all'; see `invoke models`"
)
DIM = "batch=1: a size that a model leaves open, or the value of an input of one integer; repeatable"
ENGINE = "auto (Docker if it answers, else local), docker, local, or bubblewrap: local in a cage"
WEIGHTS = "where a network's are: embed (in the library), file (beside it), symbol (left to the linker)"
GUARD = (
    "small, or all: which kernels are also run between pages that must not be touched; small are those "
    "of up to 4 million operations, larger ones run so on a target's first processor"
)
RECORDS = "folders of records of tuning, several with commas, that go before those that ship"
WINOGRAD = "allow Winograd's algorithm for 3x3 convolutions: faster, less accurate, within its own bound"
VERBOSE = "also show what compilers and Docker print"
JOBS = "steps to run at once (default: the number of processors)"

COMMON = {"arch": ARCH, "model": MODEL, "engine": ENGINE, "jobs": JOBS}


@task(
    help={
        "offline": "a bundle of `invoke images --export`: everything comes from it, nothing from a network",
        "peers": "only unpack Debian's libraries that `invoke bench` compares with, into a folder of ours",
        "verbose": "also show what the package manager prints",
    }
)
def setup(c: Context, offline: str = "", peers: bool = False, verbose: bool = False) -> None:
    """Bring what pip cannot: QEMU, ssh, bubblewrap and, where it can run, Docker. Asks nothing."""
    from toolchains import bundle, provision
    from toolchains.bench.peers import debian
    from toolchains.native import own_target

    say = Progress(verbose=verbose).say
    if peers:
        debian.provide(find_target(own_target()), say)
    elif offline:
        bundle.provide(Path(offline), say)
    else:
        provision.provide(say)


@task(
    help={
        "export": "the folder to write an offline bundle into: images, packages, wheels and pins",
        "anew": "build the images instead, taking nothing from earlier builds",
        "arch": ARCH,
        "engine": "auto, docker, or local and bubblewrap: without images",
        "verbose": VERBOSE,
    }
)
def images(
    c: Context,
    export: str = "",
    anew: bool = False,
    arch: str = "all",
    engine: str = "auto",
    verbose: bool = False,
) -> None:
    """Show the image of each target, build them anew, or write what a machine without a network needs."""
    from toolchains import bundle

    for line in bundle.images(
        find_targets(arch), engine, Progress(verbose=verbose), anew=anew, export=export
    ):
        OUT.print(line)


@task()
def doctor(c: Context) -> None:
    """Say what is here, what is missing, and how to get it. Exit 4 if a check could not run."""
    from toolchains import inventory
    from toolchains.provision import examine

    found = examine()
    OUT.print(inventory.findings(found))
    if any(each.state == "missing" for each in found):
        raise SystemExit(MissingToolError.status)


@task(help={"json": "print all that is known about each target, as JSON", "arch": ARCH})
def targets(c: Context, json: bool = False, arch: str = "all") -> None:
    """List the targets: the processors that kernels can be generated for."""
    from toolchains import inventory

    known = find_targets(arch)
    if json:
        print(msgspec.json.format(msgspec.json.encode(known), indent=1).decode())
        return
    OUT.print(inventory.targets(known))


@task()
def models(c: Context) -> None:
    """List the catalogue: the listings of operators that ship with kernfit."""
    from toolchains import inventory

    OUT.print(inventory.catalogue())


@task(
    help={
        **COMMON,
        "check": "all, or sample: of kernels that differ in sizes alone, the smallest",
        "guard": GUARD,
        "weights": WEIGHTS,
        "max-arena": "the most scratch memory that a network may need, such as 256K",
        "dim": DIM,
        "records": RECORDS,
        "winograd": WINOGRAD,
        "out": "folder for archives and reports (default: dist)",
        "require-checks": "exit 6 if any check was skipped",
        "verbose": VERBOSE,
    },
    iterable=["dim"],
)
def build(
    c: Context,
    arch: str = "",
    model: str = model_files.DEFAULT,
    engine: str = "auto",
    jobs: str = "",
    check: str = "all",
    guard: str = "small",
    weights: str = "embed",
    max_arena: str = "",
    dim: Any = None,
    records: str = "",
    winograd: bool = False,
    out: str = "dist",
    require_checks: bool = False,
    verbose: bool = False,
) -> None:
    """Generate, compile, link, check and archive a library: invoke build --arch riscv64."""
    from toolchains import summary
    from toolchains.batch import build_all
    from toolchains.session import opened
    from toolchains.words import parse_bytes, require_known

    require_known(check=check, guard=guard, weights=weights)
    limit = parse_bytes("--max-arena", max_arena) if max_arena else None
    with opened(arch, model, engine, jobs, out, verbose=verbose, records=records, dim=dim) as s:
        options = msgspec.structs.replace(
            s.options, checks=check, guards=guard, weights=weights, max_arena=limit, winograd=winograd
        )
        built, failures = build_all(s.models, s.targets, options, s.progress, s.oracles())
    summary.conclude(OUT, built, failures, skipped_too=require_checks)


@task(
    help={
        **COMMON,
        "check": "all, or sample: of kernels that differ in sizes alone, the smallest",
        "weights": WEIGHTS,
        "dim": DIM,
        "sign": "a secret key of minisign, which then signs SHA256SUMS",
        "out": "folder for archives, SHA256SUMS, NOTES.md, reports and provenance (default: release)",
        "verbose": VERBOSE,
    },
    iterable=["dim"],
)
def release(
    c: Context,
    arch: str = "all",
    model: str = "all",
    engine: str = "auto",
    jobs: str = "",
    check: str = "all",
    weights: str = "embed",
    dim: Any = None,
    sign: str = "",
    out: str = "release",
    verbose: bool = False,
) -> None:
    """Make a release of the commit that is checked out: archives, their sums, and a note."""
    from toolchains import release as releases
    from toolchains import summary
    from toolchains.session import opened
    from toolchains.words import require_known

    require_known(check=check, weights=weights)
    source = releases.source_for(Path(out))
    with opened(arch, model, engine, jobs, out, verbose=verbose, dim=dim) as s:
        asked = msgspec.structs.replace(s.options, checks=check, weights=weights)
        built, failures = releases.release(replace(s, options=asked), Path(out), source, sign)
    summary.conclude(OUT, built, failures, skipped_too=False)


@task(
    positional=["archive"],
    help={
        "archive": "an archive of `invoke release`, with its provenance and SHA256SUMS beside it",
        "rebuild": "also make it again from the commit that it names, and compare (default)",
        "engine": ENGINE,
        "offline": "a bundle of `invoke images --export`, from which comes all that a rebuild needs",
        "key": "a public key of minisign (a file, or its words), which must have signed SHA256SUMS",
        "verbose": "also show what the rebuild prints",
    },
)
def verify(
    c: Context,
    archive: str,
    rebuild: bool = True,
    engine: str = "auto",
    offline: str = "",
    key: str = "",
    verbose: bool = False,
) -> None:
    """Say whether an archive is what it says: its sums, SBOM, objects and provenance; and make it again."""
    from toolchains.verifying import Again, verify_archive

    again = Again(engine=engine, offline=offline) if rebuild else None
    for line in verify_archive(Path(archive), Progress(verbose=verbose), again, key):
        OUT.print(line, markup=False, soft_wrap=True)


@task(
    help={
        **COMMON,
        "guard": GUARD,
        "histogram": "show which instructions each kernel executed, by mnemonic",
        "trace": "name the first tensor of a network (.onnx) that differs from onnxruntime's, call by call",
        "dim": DIM,
        "require-checks": "exit 6 if any check was skipped",
        "verbose": "also show what the emulator prints",
    },
    iterable=["dim"],
)
def check(
    c: Context,
    arch: str = "",
    model: str = model_files.DEFAULT,
    engine: str = "auto",
    jobs: str = "",
    guard: str = "small",
    histogram: bool = False,
    trace: bool = False,
    dim: Any = None,
    require_checks: bool = False,
    verbose: bool = False,
) -> None:
    """Run the checks of a library that has been built once more, and show every kernel."""
    from toolchains import pipeline, summary
    from toolchains.session import opened
    from toolchains.words import require_known

    require_known(guard=guard)
    with opened(arch, model, engine, jobs, "dist", verbose=verbose, dim=dim) as s:
        if trace:
            from toolchains import tracing

            traces = tracing.trace_all(s.models, s.paths, s.dims, s.targets, s.options, s.progress)
            OUT.print(tracing.table_of(traces))
            tracing.require(traces)
            return
        options = msgspec.structs.replace(s.options, guards=guard)
        reports = pipeline.check_all(s.models, s.targets, options, s.progress, histogram=histogram)
    summary.print_reports(OUT, reports)
    summary.print_histograms(OUT, reports)
    summary.require(reports, skipped_too=require_checks)


@task(
    help={
        "arch": "targets; those that this machine runs are timed, of others instructions are counted "
        "under QEMU (default: this machine's own)",
        "sets": "what to time: several with commas of resnet50, bert-base, square, unlisted, vector, "
        "conv-resnet50, depthwise-mobilenet-v2, rows, building; or a listing (default: all)",
        "model": "measure whole networks (.onnx or torch programs, several with commas) beside "
        "onnxruntime instead: the set `networks`",
        "layers": "of these networks, also show what every call takes, beside onnxruntime's own profile",
        "dim": DIM,
        "size": "compare code and data bytes with those of the libraries instead",
        "seconds": "how long the rounds of one kernel may take in all",
        "records": RECORDS,
        "winograd": WINOGRAD,
        "out": "folder for bench.json and the picture (default: bench)",
        "engine": ENGINE,
        "jobs": JOBS,
        "verbose": "also show what compilers print",
    },
    iterable=["dim"],
)
def bench(
    c: Context,
    arch: str = "",
    sets: str = "",
    model: str = "",
    layers: bool = False,
    dim: Any = None,
    size: bool = False,
    seconds: str = "1",
    records: str = "",
    winograd: bool = False,
    out: str = "bench",
    engine: str = "auto",
    jobs: str = "",
    verbose: bool = False,
) -> None:
    """Measure our kernels beside the libraries that they replace: table, bench.json, picture."""
    from toolchains.bench import networks, running
    from toolchains.native import own_target
    from toolchains.session import opened
    from toolchains.words import parse_seconds

    taking = parse_seconds("--seconds", seconds)
    networks.require_words(model, sets, of_networks=layers or bool(dim), size=size)
    arch, models = arch or own_target(), model or model_files.DEFAULT
    with opened(arch, models, engine, jobs, out, verbose=verbose, records=records, dim=dim) as s:
        options = msgspec.structs.replace(s.options, winograd=winograd)
        if model:
            networks.bench_models(
                s.models,
                s.paths,
                s.dims,
                s.targets,
                options,
                s.progress,
                seconds=taking,
                layers=layers,
                show=OUT.print,
            )
        else:
            running.bench(s.targets, sets, options, s.progress, seconds=taking, size=size, show=OUT.print)


@task(
    help={
        "arch": "target, several with commas between; time decides where this machine or the board runs "
        "it, else instructions counted under QEMU choose the register tile and the unrolling",
        "host": "a board that runs the target, as user@board or user@board:port: time is measured there, "
        "over ssh with your own configuration and keys",
        "model": MODEL,
        "records": "folder whose <target>.toml takes what was found (default: those that ship)",
        "winograd": WINOGRAD,
        "engine": ENGINE,
        "jobs": JOBS,
        "verbose": "also show what compilers print",
    },
)
def tune(
    c: Context,
    arch: str = "",
    host: str = "",
    model: str = model_files.DEFAULT,
    records: str = "",
    winograd: bool = False,
    engine: str = "auto",
    jobs: str = "",
    verbose: bool = False,
) -> None:
    """Search for better schedules near the model's, and record them for builds. Resumable."""
    from toolchains.bench.tuning import tune_all
    from toolchains.session import opened

    with opened(arch, model, engine, jobs, "dist", verbose=verbose) as s:
        options = msgspec.structs.replace(s.options, winograd=winograd)
        folder = Path(records) if records else None
        for path in tune_all(s.models, s.targets, options, s.progress, folder, host):
            OUT.print(str(path), soft_wrap=True)


@task(
    help={
        "all": "also build and check every listing of the catalogue on every target (an hour)",
        "only": "unit, emulation, docker, conformance or fuzz: one folder of tests",
        "match": "run tests whose names match this (pytest's -k)",
        "require": "fail if a test was skipped",
    },
)
def test(c: Context, all: bool = False, only: str = "", match: str = "", require: bool = False) -> None:
    """Run the tests: unit, emulation under QEMU, and Docker's where an engine answers."""
    from toolchains.quality import run_tests

    raise SystemExit(run_tests(everything=all, only=only, match=match, require=require))


@task(
    positional=["model"],
    iterable=["dim"],
    help={
        "model": "an ONNX model (.onnx), or a torch program (package.module:factory)",
        "arch": "targets whose kernels, packed weights and arena are told: several with commas, or 'all'",
        "dim": DIM,
        "json": "print it as JSON",
    },
)
def inspect(
    c: Context, model: str, arch: str = "", dim: list[str] | None = None, json: bool = False
) -> None:
    """Say what a model is made of, and which of its nodes are missing here, and why."""
    from kernels.models.inspection import inspect_onnx
    from toolchains import summary
    from toolchains.torch_program import find_model
    from toolchains.words import parse_dims

    targets = find_targets(arch) if arch else ()
    path = find_model(model, Progress())
    found = inspect_onnx(path, parse_dims(dim or ()), targets)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return
    summary.print_inspection(OUT, found)
    if found.missing or any(each.reason for each in found.targets):
        raise SystemExit(InputError.status)


@task(help={"fix": "mend what can be mended"})
def lint(c: Context, fix: bool = False) -> None:
    """Check style, types and workflows: ruff with all its rules, mypy in its strict mode, zizmor."""
    from toolchains.quality import run_linters

    raise SystemExit(run_linters(fix=fix))


@task(help={"images": "also remove kernfit's Docker images"})
def clean(c: Context, images: bool = False) -> None:
    """Remove build/ and dist/: everything that can be made again."""
    for folder in ("build", "dist"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    if images:
        from toolchains.engines.image import remove_images

        for tag in remove_images():
            OUT.print(f"removed {tag}")


@task(help={"update": "take the newest versions, and write every file of pins"})
def pins(c: Context, update: bool = False) -> None:
    """Show the pinned versions, or renew them all and say what changed."""
    from toolchains import pins as pin_files

    if not update:
        for name, version in pin_files.pinned(pin_files.PROJECT.read_text(encoding="utf-8")).items():
            OUT.print(f"{name} {version}")
        return
    for line in pin_files.update(OUT.print) or ["nothing changed"]:
        OUT.print(line)
