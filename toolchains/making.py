"""Makes a library in a folder: objects by code generation, weights, texts, and the linker's work."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from kernels.codegen.driver import run_symbol, weights_file, weights_symbol
from kernels.codegen.header import header
from kernels.codegen.package import package_files
from kernels.codegen.request import Request
from kernels.errors import EngineError, InputError
from kernels.graph.network import plan_network
from kernels.graph.planning import plan as make_plan
from kernels.graph.weights import packed_weights
from kernels.manifest import Manifest, Measured, manifest_of
from kernels.plan import Kernel, Plan, WeightsMode
from kernels.program import Model, Network
from kernels.tuning import read_records
from toolchains.cache import ROOT, Store, code_digest, digest, versions
from toolchains.checking import Checks, Guards
from toolchains.engines import Engine
from toolchains.inspection import measure
from toolchains.interruption import threads
from toolchains.link import LinkRequest
from toolchains.objects import data_object
from toolchains.progress import Progress
from toolchains.scratch import write_whole
from toolchains.share import Share
from toolchains.target import Target

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
"""kernfit's own version."""
LLVM_OF_TVM = "22"
"""The LLVM inside the pinned apache-tvm wheel (`target.llvm_version_major`)."""
KERNELS_PER_PROCESS = 6
"""A process of code generation takes a second to begin, and 0.15 s for each kernel."""


SUFFIXES = (".o", ".frame.o")
"""Of the objects of each function: what is linked, and what tells of its stack."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to build: engine, number of parallel jobs, where archives go, where the rest.

    Of the checks, all are made, or those of a sample (`checking.sample`); `guards` says which
    kernels are run between pages that must not be touched. `records` are
    folders of records of tuning that go before those that ship. `winograd` allows algorithms
    that are faster and less accurate. `weights` says where those of
    networks are, whose arena may be `max_arena` bytes, if that is given.
    """

    engine: Engine
    jobs: int
    out: Path
    build: Path = ROOT / "build"
    checks: Checks = "all"
    guards: Guards = "small"
    records: tuple[Path, ...] = ()
    winograd: bool = False
    weights: WeightsMode = "embed"
    max_arena: int | None = None

    def plan(self, model: Model, target: Target) -> Plan:
        """The plan of a listing or a network, by these records and with these algorithms."""
        records = read_records(target.name, self.records)
        if isinstance(model, Network):
            return plan_network(
                model,
                target,
                records,
                weights_mode=self.weights,
                max_arena=self.max_arena,
                winograd=self.winograd,
            )
        return make_plan(model, target, records, winograd=self.winograd)


def make(
    plan: Plan,
    target: Target,
    options: Options,
    place: Path,
    progress: Progress,
    network: Network | None = None,
    share: Share | None = None,
) -> Manifest:
    """Fill the folder `place` with the library and the runner of a plan, and describe them.

    `network` is what the plan is of, where it is of one: its constants become the weights. The
    `share` of the processors is all of them where none is given.
    """
    title = f"{plan.library} for {target.name}"
    progress.step(f"{title}: {len(plan.kernels)} kernels, engine {options.engine.name}")
    with progress.work("image", plan.library, target.name) as work:
        options.engine.prepare(target, work.output)
    _compile(plan, target, options, place, progress, share or Share(options.jobs))
    weights_sha256 = ""
    if network is not None and plan.network is not None and plan.network.weights:
        weights_sha256 = _weigh(plan, network, target, place)
    manifest = _describe(plan, target, place, weights_sha256)
    progress.step(f"{title}: linking")
    request = LinkRequest(plan=plan, target=target, compiler=options.engine.compiler)
    path = write_json(place / "link.json", request)
    with progress.work("link", plan.library, target.name) as work:
        work.held(options.engine.run("toolchains.link", path, target, on_line=work.output))
    path.unlink()
    return manifest


def write_json(path: Path, value: Any) -> Path:
    """Write a value as JSON, whole or not at all."""
    write_whole(path, msgspec.json.encode(value))
    return path


def _compile(
    plan: Plan, target: Target, options: Options, place: Path, progress: Progress, share: Share
) -> None:
    """Fill `place` with all objects of the library's code, from the cache or by code generation."""
    store = Store(options.build / "cache" / "objects")
    keys = {kernel.symbol: _key(kernel, target) for kernel in plan.kernels}
    kernels = {kernel.symbol: kernel for kernel in plan.kernels}
    names = {kernel.symbol: kernel.name for kernel in plan.kernels}
    driver = run_symbol(plan.library)
    if plan.network is not None:
        keys[driver] = _key(plan, target)
        names[driver] = "run"
    missing = [symbol for symbol, key in keys.items() if not _fetch(store, key, symbol, place)]
    if not missing:
        progress.step(f"{plan.library} for {target.name}: all {len(plan.kernels)} kernels were cached")
    count = min(share.count, -(-len(missing) // KERNELS_PER_PROCESS))

    with progress.work("compile", plan.library, target.name, len(missing)) as work:
        for symbol in keys.keys() - set(missing):
            work.part(names[symbol], "cached", size=(place / f"{symbol}.o").stat().st_size)

        def finished(line: str) -> None:
            if line not in names:
                work.output(line)
                return
            for suffix in SUFFIXES:
                data = (place / f"{line}{suffix}").read_bytes()
                store.put(digest(keys[line], suffix), data)
            work.part(names[line], size=(place / f"{line}.o").stat().st_size)

        def generate(number: int) -> None:
            share = missing[number::count]
            request = Request(
                target=target,
                kernels=tuple(kernels[symbol] for symbol in share if symbol in kernels),
                driver=plan if driver in share else None,
                out=".",
            )
            path = write_json(place / f"codegen{number}.json", request)
            with _naming_nodes(plan):
                work.held(options.engine.run("kernels.codegen", path, target, on_line=finished))
            path.unlink()

        with threads(count, lambda: None) as pool:
            for each in [pool.submit(generate, number) for number in range(count)]:
                each.result()
        lost = [names[symbol] for symbol in missing if not (place / f"{symbol}.o").is_file()]
        if lost:
            raise EngineError(f"code generation ended without an object for {', '.join(lost)}")


@contextmanager
def _naming_nodes(plan: Plan) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(_of_node(plan, str(error))) from error


def _of_node(plan: Plan, told: str) -> str:
    """What code generation says of a kernel, about the node that it is of."""
    symbol, _, why = told.partition(": ")
    calls = plan.network.calls if plan.network else ()
    nodes = [call.node for call in calls if plan.kernel(call.kernel).symbol == symbol]
    return f"{plan.library}: node '{nodes[0]}': {why}" if nodes else f"{plan.library}: {told}"


def _key(part: Kernel | Plan, target: Target) -> str:
    return digest(part, target.cpu, target.llvm, target.pointer_bits, code_digest("kernels"), versions())


def _fetch(store: Store, key: str, symbol: str, work: Path) -> bool:
    """Write all objects of a function, or none: in a container, code generation may not replace ours."""
    parts: dict[str, bytes] = {}
    for suffix in SUFFIXES:
        data = store.get(digest(key, suffix))
        if data is None:
            return False
        parts[suffix] = data
    for suffix, data in parts.items():
        (work / f"{symbol}{suffix}").write_bytes(data)
    return True


def _weigh(plan: Plan, network: Network, target: Target, work: Path) -> str:
    """Write a network's weights as a file, and as an object where they are linked; their SHA-256."""
    path = work / weights_file(plan.library)
    total = hashlib.sha256()
    with path.open("wb") as stream:
        for piece in packed_weights(plan, network, target.byte_order):
            stream.write(piece)
            total.update(piece)
    mode = plan.network.weights_mode if plan.network else "file"
    if mode != "file":
        symbol = weights_symbol(plan.library)
        like = work / f"{run_symbol(plan.library)}.o"
        data_object(path, symbol, like, work / f"{symbol}.o", hidden=mode == "embed")
    if mode == "embed":
        path.unlink()
    return total.hexdigest()


def _describe(plan: Plan, target: Target, work: Path, weights_sha256: str) -> Manifest:
    """Write the manifest, the header, and what else a C developer finds in the archive."""
    measured: dict[str, Measured] = {
        kernel.symbol: measure(work, kernel.symbol, target) for kernel in plan.kernels
    }
    if plan.network is not None:
        driver = run_symbol(plan.library)
        needs = {*measured, weights_symbol(plan.library)}
        measured[driver] = measure(work, driver, target, needs)
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
        weights_sha256,
    )
    texts = {
        f"{plan.library}.h": header(plan, target, VERSION, weights_sha256),
        **package_files(plan, VERSION),
    }
    for name, text in texts.items():
        (work / name).write_text(text, encoding="utf-8")
    (work / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return manifest


def members(plan: Plan) -> list[str]:
    """The names of the files that the archive of a library holds."""
    network = plan.network
    beside = network is not None and network.weights and network.weights_mode != "embed"
    return [
        f"lib{plan.library}.a",
        f"lib{plan.library}.so",
        f"{plan.library}.h",
        "manifest.json",
        *package_files(plan, VERSION),
        *([weights_file(plan.library)] if beside else []),
    ]
