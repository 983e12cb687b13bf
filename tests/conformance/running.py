"""Runs ONNX's tests by kernfit's own path, many at once: reader, passes, plan, code, one runner for all.

Every test becomes a library of its own, with its own `<library>_run`; the libraries of a batch
are linked into one runner, and share kernels that are alike, which is what makes 1,488 of them quick.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np
from onnx.backend.test.runner import Runner

from kernels import whole
from kernels.codegen.driver import run_symbol, weights_symbol
from kernels.codegen.header import header
from kernels.codegen.lower import compile_driver, compile_kernel
from kernels.errors import KernfitError
from kernels.graph import optimise
from kernels.graph.network import plan_network
from kernels.graph.weights import packed_weights
from kernels.models import read_model
from kernels.plan import Kernel, NetworkPlan, Plan
from kernels.program import Network
from kernels.whole import Reference
from tests.conformance.selection import Array, Case
from toolchains.cache import digest
from toolchains.emulate import Machine, fault, find_machine
from toolchains.inspection import measure
from toolchains.link import runner, zig_environment
from toolchains.process import run
from toolchains.table import network_entry, table_text
from toolchains.target import NATIVE, Target, find_target

BATCH = 62
"""Tests in one runner."""
SECONDS = 60.0
"""One test may take so long, under an emulator too."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A test whose library is compiled, and what its run is given."""

    case: Case
    plan: Plan
    network: NetworkPlan
    data: bytes


def run_all(cases: Sequence[Case], target: Target, cpu: str, workers: int | None = None) -> dict[str, str]:
    """For each test by name: nothing where it passes, else what is wrong with it, in one line.

    `cpu` is a processor of QEMU's, or `native` where this machine runs the target itself.
    """
    batches = [(cases[first : first + BATCH], target.name, cpu) for first in range(0, len(cases), BATCH)]
    found: dict[str, str] = {}
    # A worker begins afresh: what runs the tests may have threads, which a fork does not survive.
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for results in pool.map(_batch, batches):
            found |= results
    return found


def _batch(work: tuple[Sequence[Case], str, str]) -> dict[str, str]:
    cases, name, cpu = work
    target = find_target(name)
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ready: dict[str, Ready] = {}
        for number, case in enumerate(cases):
            try:
                ready[case.name] = _compiled(case, f"n{number}", target, folder)
            except KernfitError as error:
                results[case.name] = str(error).removeprefix(f"{folder}/")
            except Exception as error:  # noqa: BLE001 - a bug of ours is a failed test, not the end
                results[case.name] = f"a bug: {type(error).__name__}: {str(error).splitlines()[:1]}"
        if ready:
            _link(ready.values(), target, folder)
            results |= {name: _outcome(each, target, cpu, folder) for name, each in ready.items()}
    return results


def _compiled(case: Case, library: str, target: Target, folder: Path) -> Ready:
    path = folder / f"{library}.onnx"
    path.write_bytes(case.model.SerializeToString())
    read = read_model(path)
    assert isinstance(read, Network)
    network = optimise(read)
    plan = plan_network(network, target, weights_mode="file")
    assert plan.network is not None
    plan = msgspec.structs.replace(plan, kernels=tuple(map(_shared, plan.kernels)))
    for kernel in plan.kernels:
        if not (folder / f"{kernel.symbol}.o").exists():
            compile_kernel(kernel, target, folder)
            measure(folder, kernel.symbol, target)
    compile_driver(plan, target, folder)
    symbols = [kernel.symbol for kernel in plan.kernels]
    measure(folder, run_symbol(library), target, {*symbols, weights_symbol(library)})
    (folder / f"{library}.h").write_text(header(plan, target, ""), encoding="utf-8")
    reference = Reference(source="", inputs=case.inputs, outputs={})
    data = whole.input_bytes(plan.network, reference, target)
    return Ready(
        case=case,
        plan=plan,
        network=plan.network,
        data=data + b"".join(packed_weights(plan, network, target.byte_order)),
    )


def _shared(kernel: Kernel) -> Kernel:
    """The kernel under a name of what it computes: tests that have it in common compile it once."""
    nameless = msgspec.structs.replace(kernel, name="k", symbol="k")
    return msgspec.structs.replace(kernel, symbol=f"k{digest(nameless)[:24]}")


def _link(ready: Iterable[Ready], target: Target, folder: Path) -> None:
    plans = [each.plan for each in ready]
    entries = [network_entry(each.plan, each.network, each.plan.library) for each in ready]
    (folder / "table.c").write_text(table_text([plan.library for plan in plans], entries), encoding="utf-8")
    symbols = [
        symbol
        for plan in plans
        for symbol in (*(kernel.symbol for kernel in plan.kernels), run_symbol(plan.library))
    ]
    objects = [f"{symbol}.o" for symbol in dict.fromkeys(symbols)]
    done = run(runner("zig", target, objects), timeout=600, cwd=folder, env=zig_environment())
    assert done.status == 0, done.output


def _outcome(ready: Ready, target: Target, cpu: str, folder: Path) -> str:
    machine = Machine() if cpu == NATIVE and target.native is None else find_machine(target, cpu)
    if machine.reason:
        return machine.reason
    name = ready.plan.library
    (folder / f"{name}.in").write_bytes(ready.data)
    words = [*machine.command, str(folder / "runner"), name, f"{name}.in", f"{name}.out"]
    done = run(words, timeout=SECONDS, cwd=folder)
    if done.timed_out:
        return f"no result after {SECONDS:.0f} s"
    if done.status:
        return fault(done)
    raw = (folder / f"{name}.out").read_bytes()
    outputs, at = [], 0
    for port in ready.network.outputs:
        element = np.dtype(port.dtype.value).newbyteorder(target.byte_order)
        outputs.append(np.frombuffer(raw, element, port.elements, at).reshape(port.shape))
        outputs[-1] = outputs[-1].astype(port.dtype.value)
        at += port.bytes
    case = ready.case
    try:
        Runner.assert_similar_outputs(case.outputs, outputs, case.rtol, case.atol)
    except AssertionError as error:
        told = [line for line in str(error).splitlines() if line.strip()]
        how_far = _distance(case.outputs, outputs)
        return f"another result, {how_far}: {'; '.join(line.strip() for line in told[:6])}"
    return ""


def _distance(wanted: Sequence[Array], found: Sequence[Array]) -> str:
    """How far results are off, as a power of ten of the largest number that is due."""
    off = 0.0
    for due, got in zip(wanted, found, strict=True):
        if due.shape != got.shape:
            return "of another shape"
        with np.errstate(all="ignore"):
            distance = np.abs(got.astype(np.float64) - due.astype(np.float64)).max(initial=0.0)
            off = max(off, float(distance / np.abs(due.astype(np.float64)).max(initial=0.0)))
    return (
        f"off by less than {10.0 ** np.ceil(np.log10(off)):.0e} of the largest"
        if 0 < off < 1
        else "far off"
    )
