"""What reads files of others: how to call it, what it is begun with, and how that is changed.

Each function gets the path of one input in a folder of its own. It ends, or raises InputError;
anything else is a defect.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx

from kernels import graph, whole
from kernels.codegen.driver import driver_text
from kernels.codegen.header import header
from kernels.codegen.package import package_files
from kernels.codegen.request import Request, read_request
from kernels.errors import InputError
from kernels.graph.network import plan_network
from kernels.graph.planning import plan
from kernels.models import CATALOG, read_model
from kernels.models.inspection import inspect_onnx
from kernels.models.onnx_file import OLDEST_OPSET
from kernels.models.onnx_model import read_onnx
from kernels.pack import pack_file, read_manifest
from kernels.program import Program
from kernels.repack import pack_network
from kernels.tuning import Known, Record, RecordFile, read_file, signature_of
from kernels.tuning import text as records_text
from tests.conformance.selection import cases
from tests.fuzz import mutators
from tests.fuzz.mutators import Mutator
from tests.unit import test_repack
from toolchains.archive import make_archive
from toolchains.link import LinkRequest
from toolchains.target import TARGETS, all_targets, find_target
from toolchains.unpacking import unpack

HOST = find_target("x86_64")
MODELS = Path(onnx.__file__).parent / "backend" / "test" / "data"
SMALL = 6000
"""Bytes of a seed: small ones are tried more often."""
STUB = "define i32 @stub() {\n}\n"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """`read` takes the file `name`; `seeds` gives inputs that it accepts, `more_seeds` further ones."""

    name: str
    read: Callable[[Path], None]
    seeds: Callable[[], Iterator[bytes]]
    mutate: Mutator
    more_seeds: Callable[[], Iterator[bytes]] = lambda: iter(())


# -- ONNX ----------------------------------------------------------------------------


def read_onnx_model(path: Path) -> None:
    """From the file to what a compiler is told, and what `invoke inspect` says."""
    network = graph.optimise(read_onnx(path))
    planned = plan_network(network, HOST)
    driver_text(STUB, planned, HOST)
    header(planned, HOST, "0")
    package_files(planned, "0")
    msgspec.json.decode(msgspec.json.encode(planned), type=type(planned))


def inspect_model(path: Path) -> None:
    """What `invoke inspect` says."""
    inspect_onnx(path, {})


def models() -> Iterator[bytes]:
    """Small networks that the onnx package holds, those of opset 6 as opset 7, and one of ours."""
    found = [path for path in sorted(MODELS.rglob("model.onnx"), key=str) if path.stat().st_size < SMALL]
    for model in map(onnx.load, found):
        model.opset_import[0].version = max(model.opset_import[0].version, OLDEST_OPSET)
        yield from _read(model)
    with tempfile.TemporaryDirectory() as folder:
        yield test_repack.model(Path(folder), "seed", filters=2).read_bytes()


def operators() -> Iterator[bytes]:
    """The smallest model of each operator that the onnx package tests; to make these takes ten seconds."""
    smallest: dict[str, onnx.ModelProto] = {}
    for case in cases().values():
        if case.op not in smallest or case.model.ByteSize() < smallest[case.op].ByteSize():
            smallest[case.op] = case.model
    for model in smallest.values():
        yield from _read(model)


def _read(model: onnx.ModelProto) -> Iterator[bytes]:
    """The model, if it is small, and none that is refused at once."""
    data = model.SerializeToString()
    with tempfile.TemporaryDirectory() as folder, suppress(InputError):
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        read_onnx_model(path)
        if len(data) < SMALL:
            yield data


# -- text ----------------------------------------------------------------------------


def read_listing(path: Path) -> None:
    """From the file to the plan."""
    program = read_model(path)
    if not isinstance(program, Program):
        raise TypeError("a listing is no network")
    header(plan(program, HOST), HOST, "0")


def listings() -> Iterator[bytes]:
    """Each kind of kernel of the catalogue alone, at its smallest."""
    seen: dict[str, bytes] = {}
    for path in sorted(CATALOG.glob("*.toml")):
        first, *kernels = re.split(
            r"(?=^\[\[kernel\]\])", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        for kernel in kernels:
            found = re.search(r'op = "(\w+)"', kernel)
            if found:
                seen.setdefault(f"{found[1]}{'fuse' in kernel}", f"{first}{kernel}".encode())
    yield from seen.values()


def read_targets(path: Path) -> None:
    """A folder with one target's description, from which a kernel is planned."""
    for target in all_targets.__wrapped__(path.parent).values():
        plan(GEMM, target)


def targets() -> Iterator[bytes]:
    """Those that ship, each under the one name."""
    for path in sorted(TARGETS.glob("*.toml")):
        yield re.sub(
            r'^name = ".*"', 'name = "input"', path.read_text(encoding="utf-8"), flags=re.MULTILINE
        ).encode()


def read_records(path: Path) -> None:
    """Records of tuning, by which kernels are then planned."""
    records = {each.kernel: Known(record=each, file="f") for each in read_file(path, "x86_64").record}
    plan(GEMM, HOST, records, winograd=True)


def records() -> Iterator[bytes]:
    """The schedules that the model gives."""
    kernels = plan(GEMM, HOST, winograd=True).kernels
    for number in range(len(kernels)):
        found = tuple(
            Record(
                kernel=signature_of(each), schedule=each.schedule, gain=1.5, by="time", cpu="c", date="d"
            )
            for each in kernels[number:]
        )
        yield records_text(RecordFile(target="x86_64", record=found)).encode()


def _listing() -> Program:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.toml"
        path.write_text(LISTING, encoding="utf-8")
        program = read_model(path)
    if not isinstance(program, Program):
        raise TypeError("a listing is no network")
    return program


LISTING = """
name = "l"
source = "s"
[[kernel]]
name = "fc"
op = "gemm"
m = 7
n = 33
k = 40
[[kernel]]
name = "conv"
op = "conv2d"
inputs = { x = [1, 16, 16, 32] }
attributes = { filters = 32, kernel = [3, 3], padding = [1, 1, 1, 1] }
[[kernel]]
name = "dw"
op = "depthwise_conv2d"
inputs = { x = [1, 9, 9, 24] }
attributes = { kernel = [3, 3] }
"""
GEMM = _listing()


# -- JSON ----------------------------------------------------------------------------


def read_a_manifest(path: Path) -> None:
    """A manifest, by which a model's weights are packed, or an array for the first kernel."""
    described, out = read_manifest(path), path.with_name("out")
    if described.network is not None:
        pack_network(described, NETWORK, out)
    elif described.kernels:
        pack_file(described, described.kernels[0].name, ARRAY, out)


def manifests() -> Iterator[bytes]:
    """Of a network and of a listing."""
    planned, _ = test_repack.planned(NETWORK, "x86_64")
    yield msgspec.json.encode(test_repack.manifest(planned))
    yield msgspec.json.encode(test_repack.manifest(plan(GEMM, HOST)))


def read_requests(path: Path) -> None:
    """What a code generation process and a linking one are asked."""
    for kind in (Request, LinkRequest):
        try:
            read_request(path, kind)
        except InputError as error:
            last = error
        else:
            return
    raise last


def requests() -> Iterator[bytes]:
    """For a listing and for a network."""
    planned = plan(GEMM, HOST)
    yield msgspec.json.encode(Request(target=HOST, kernels=planned.kernels, out="."))
    yield msgspec.json.encode(LinkRequest(plan=planned, target=HOST, compiler="zig"))


# -- archives ------------------------------------------------------------------------


def read_archive(path: Path) -> None:
    """An archive of ours, unpacked."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unpack(path.rename(path.with_name("demo.tar.gz")), Path(folder))


def archives() -> Iterator[bytes]:
    """Of one file and of several."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, size in (("a.h", 10), ("manifest.json", 700), ("lib.so", 0)):
            (work / name).write_bytes(b"x" * size)
            make_archive(work / "demo.tar.gz", "demo", {p.name: p for p in work.glob("[alm]*")})
            yield (work / "demo.tar.gz").read_bytes()


def read_reference(path: Path) -> None:
    """What a network was judged by, as `invoke check` reads it."""
    whole.load(path)


def references() -> Iterator[bytes]:
    """Of two inputs and an output."""
    inputs = {"x": np.ones((2, 3), np.float32), "n": np.array([1, 2])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.npz"
        whole.save(whole.Reference(source="s", inputs=inputs, outputs={"y": np.ones(4, np.float16)}), path)
        yield path.read_bytes()


def read_array(path: Path) -> None:
    """An array that is to be packed."""
    pack_file(DESCRIBED, "fc", path, path.with_name("out"))


def npy() -> Iterator[bytes]:
    """One that fits."""
    yield ARRAY.read_bytes()


KEPT = tempfile.TemporaryDirectory()
NETWORK = test_repack.model(Path(KEPT.name), "network", filters=2)
ARRAY = Path(KEPT.name) / "array.npy"
np.save(ARRAY, np.ones((40, 33), np.float32))
DESCRIBED = test_repack.manifest(plan(GEMM, HOST))

of_onnx = partial(Reader, seeds=models, more_seeds=operators, mutate=mutators.protobuf)

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        of_onnx(name="model.onnx", read=read_onnx_model),
        of_onnx(name="inspected.onnx", read=inspect_model),
        Reader(name="listing.toml", read=read_listing, seeds=listings, mutate=mutators.text),
        Reader(name="input.toml", read=read_targets, seeds=targets, mutate=mutators.text),
        Reader(name="records.toml", read=read_records, seeds=records, mutate=mutators.text),
        Reader(name="manifest.json", read=read_a_manifest, seeds=manifests, mutate=mutators.text),
        Reader(name="request.json", read=read_requests, seeds=requests, mutate=mutators.text),
        Reader(name="demo.tar.gz", read=read_archive, seeds=archives, mutate=mutators.archive),
        Reader(name="reference.npz", read=read_reference, seeds=references, mutate=mutators.arrays),
        Reader(name="array.npy", read=read_array, seeds=npy, mutate=mutators.text),
    )
}
