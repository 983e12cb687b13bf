"""Finds where a network goes wrong: its calls one by one, beside onnxruntime's tensors of those names.

Each kernel is run by itself on what the kernels before it made, under the target's emulator,
so that neither the order of calls nor the arena takes part. Tensors that only we have are
not compared; nothing is lost by that, as what is made of them is.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from kernels import check, whole
from kernels.elements import from_bytes
from kernels.errors import CheckFailedError, CheckSkippedError, InputError, UsageError
from kernels.graph.storage import store
from kernels.models import runtime
from kernels.models.oracle import oracle_for
from kernels.plan import Call, Kernel, Operand, Plan
from kernels.program import Model, Network
from toolchains.disassembly import functions
from toolchains.emulate import COUNTER, JOBS, RUNNER, EmulateRequest, Ended, Run
from toolchains.limits import limit
from toolchains.making import Options
from toolchains.progress import Progress
from toolchains.scratch import scratch, write_whole
from toolchains.share import Share
from toolchains.target import Target

Array = NDArray[Any]
MOST_AXES = 6
"""Orders of so many axes are tried."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first tensor that is not onnxruntime's; `kernel_wrong` is empty where its kernel is right."""

    tensor: str
    node: str
    kernel: str
    error: float
    bound: float
    kernel_wrong: str = ""

    @property
    def blame(self) -> str:
        """What follows from it."""
        if self.kernel_wrong:
            return f"its kernel is wrong: {self.kernel_wrong}"
        return "its kernel computes what the plan says, so the node was misread or changed"


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace of a library on one processor, up to the first difference."""

    library: str
    target: str
    cpu: str
    calls: int
    compared: int
    difference: Difference | None = None


def trace_all(
    models: Sequence[Model],
    paths: Sequence[Path],
    dims: Mapping[str, int],
    targets: Sequence[Target],
    options: Options,
    progress: Progress,
) -> list[Trace]:
    """Trace every model on every target; UsageError for a listing, which has no run."""
    found = []
    for model, path in zip(models, paths, strict=True):
        if not isinstance(model, Network):
            raise UsageError(f"{path} is a listing, whose kernels are checked by themselves anyway")
        found += [trace(model, path, dims, target, options, progress) for target in targets]
    return found


def require(traces: Sequence[Trace]) -> None:
    """CheckFailedError with the first difference and what follows from it, if there is one."""
    for each in traces:
        if each.difference is not None:
            where = f"{each.library} for {each.target}"
            told = each.difference
            raise CheckFailedError(f"{where}: '{told.tensor}' of node '{told.node}' differs; {told.blame}")


def trace(
    network: Network,
    path: Path,
    dims: Mapping[str, int],
    target: Target,
    options: Options,
    progress: Progress,
) -> Trace:
    """Run a built library's calls in order; InputError where it was not built from this model."""
    name = network.program.name
    place = options.build / target.name / name
    try:
        plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            f"nothing to trace: {name} for {target.name} has not been built; run `invoke build`"
        ) from error
    known = {tensor.name for tensor in network.program.tensors}
    if plan.network is None or any(not known.issuperset(call.tensors) for call in plan.network.calls):
        raise InputError(f"{name} for {target.name} was built from another model; run `invoke build`")
    asked = oracle_for(path, dims).ask(network)
    theirs = runtime.intermediates(path, dims, asked.inputs, known)
    options.engine.prepare(target, progress.detail)
    with scratch(options.build, f"trace-{name}-{target.name}") as folder:
        for each in (RUNNER, COUNTER):
            shutil.copy(place / each, folder / each)
        tracer = _Tracer(plan, target, options, folder)
        return _trace(network, plan, asked, theirs, tracer, progress)


def _trace(
    network: Network,
    plan: Plan,
    asked: whole.Reference,
    theirs: Mapping[str, Array],
    tracer: _Tracer,
    progress: Progress,
) -> Trace:
    normwise = max(asked.normwise, *asked.looser.values()) if asked.looser else asked.normwise
    storage = store(network.program)
    owner = storage.owner
    values: dict[str, Array] = {**network.constants, **asked.inputs}
    kernels = {kernel.name: kernel for kernel in plan.kernels}
    calls = plan.network.calls if plan.network else ()
    compared = 0
    found = None
    with progress.bar(f"{plan.library} for {plan.target}: tracing", len(calls)) as bar:
        for call in calls:
            kernel = kernels[call.kernel]
            pairs = list(zip(call.tensors, kernel.operands, strict=True))
            arrays = {
                operand.name: _part(values[owner[tensor]], storage.offsets.get(tensor, 0), operand)
                for tensor, operand in pairs
                if operand.role != "output"
            }
            raw = tracer.run(call, kernel, arrays)
            result = next(tensor for tensor, operand in pairs if operand.role == "output")
            made = from_bytes(raw, kernel.output.dtype, tracer.byte_order)
            values[owner[result]] = made.reshape(kernel.output.shape)
            bar.advance(call.node)
            expected = theirs.get(result)
            if expected is None or expected.size != made.size:
                continue
            compared += 1
            error, bound = difference(values[owner[result]], expected, normwise)
            if not error <= bound:
                verdict = check.judge(kernel, arrays, raw, tracer.target)
                found = Difference(
                    tensor=result,
                    node=call.node,
                    kernel=kernel.name,
                    error=error,
                    bound=bound,
                    kernel_wrong="" if verdict.passed else verdict.reason,
                )
                break
    return Trace(
        library=plan.library,
        target=plan.target,
        cpu=tracer.cpu,
        calls=len(calls),
        compared=compared,
        difference=found,
    )


def _part(memory: Array, offset: int, operand: Operand) -> Array:
    """What an operand is of the memory that it lies in, `offset` bytes from its beginning."""
    first = offset // operand.dtype.bytes
    return memory.ravel()[first : first + operand.elements].reshape(operand.shape)


def difference(found: Array, expected: Array, normwise: float = whole.NORMWISE) -> tuple[float, float]:
    """The largest error, and its bound for a whole network, in the order of axes that fits best.

    Inside a network a tensor lies in memory as suits its kernels, under the model's own name.
    """
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0) if expected.size else 0
    bound = normwise * float(largest) if expected.dtype.kind == "f" else 0.0
    flat = found.ravel().astype(np.float64)
    best = float("inf")
    squeezed = [extent for extent in found.shape if extent > 1]
    axes = [axis for axis, extent in enumerate(expected.shape) if extent > 1]
    orders = itertools.permutations(range(len(axes))) if len(axes) <= MOST_AXES else ()
    plain = expected.reshape([expected.shape[axis] for axis in axes])
    for laid in (plain, *(plain.transpose(order) for order in orders)):
        if laid is not plain and list(laid.shape) != squeezed:
            continue
        best = min(best, _error(flat, laid.ravel().astype(np.float64)))
        if best <= bound:
            break
    return best, bound


def table_of(traces: Sequence[Trace]) -> Table:
    """A row for each trace: what was compared, and the first tensor that differs."""
    table = Table(box=None, header_style="bold")
    for heading in ("model", "target", "cpu", "compared", "first that differs", "node", "kernel"):
        table.add_column(heading, overflow="fold")
    for heading in ("error", "bound"):
        table.add_column(heading, justify="right")
    for each in traces:
        found = each.difference
        told = ("none", "", "", "", "")
        if found is not None:
            told = (found.tensor, found.node, found.kernel, f"{found.error:.3g}", f"{found.bound:.3g}")
        compared = f"{each.compared} of {each.calls} results"
        table.add_row(each.library, each.target, each.cpu, compared, *told)
    return table


def _error(found: Array, expected: Array) -> float:
    with np.errstate(all="ignore"):
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        error = np.where(same, 0.0, np.abs(found - expected))
    return float(np.where(np.isnan(error), np.inf, error).max(initial=0.0))


class _Tracer:
    """Runs kernels by the runner in `folder`, each call by itself."""

    def __init__(self, plan: Plan, target: Target, options: Options, folder: Path) -> None:
        self.target, self.cpu = target, target.checked_on[0]
        self.byte_order = target.byte_order
        self._plan, self._engine, self._folder = plan, options.engine, folder
        self._code = functions(folder / RUNNER, target)

    def run(self, call: Call, kernel: Kernel, arrays: dict[str, Array]) -> bytes:
        """What the kernel makes of its operands; CheckFailedError where it does not end well."""
        folder = self._folder
        (folder / "call.in").write_bytes(check.input_bytes(kernel, arrays, self.target))
        (folder / "call.out").unlink(missing_ok=True)
        code = self._code[kernel.symbol]
        request = EmulateRequest(
            target=self.target,
            cpu=self.cpu,
            runs=(
                Run(
                    kernel=kernel.name,
                    input="call.in",
                    output="call.out",
                    timeout=limit("check") + kernel.flops / 2e6,
                    code=(code.start, code.end),
                ),
            ),
        )
        path = folder / "emulate.json"
        write_whole(path, msgspec.json.encode(request))
        lines: list[str] = []
        with Share(1).told_in(folder / JOBS):
            self._engine.run("toolchains.emulate", path, self.target, on_line=lines.append)
        ended = [msgspec.json.decode(line, type=Ended) for line in lines if line.startswith("{")]
        where = f"node '{call.node}', kernel {kernel.name} for {self.target.name} on {self.cpu}"
        if not ended:
            raise CheckFailedError(f"{where}: it ended without a word")
        if ended[0].outcome == "skipped":
            raise CheckSkippedError(f"{where}: {ended[0].reason}")
        if ended[0].outcome != "ran":
            raise CheckFailedError(f"{where}: {ended[0].outcome}: {ended[0].reason}")
        return (folder / "call.out").read_bytes()
