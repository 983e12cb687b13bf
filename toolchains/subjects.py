"""What can be checked: one kernel, or a whole network; how it is fed, and how judged."""

from __future__ import annotations

import abc
import shutil
from pathlib import Path
from typing import Any

from kernels import check, whole
from kernels.check import Verdict
from kernels.codegen.driver import run_symbols, weights_file
from kernels.plan import Kernel, NetworkPlan, Plan
from toolchains.table import RUN
from toolchains.target import Target


class Subject(abc.ABC):
    """A function of a library under its name in the runner's table.

    `objects` are the object files' stems, and `symbols` the functions in them, whose
    instructions are counted; `identity` is all, beside
    their code, that a check of it depends on. Some are checked in every sample: `always`.
    """

    name: str
    flops: int
    objects: tuple[str, ...]
    symbols: tuple[str, ...]
    identity: Any
    always = False

    @abc.abstractmethod
    def write_input(self, path: Path, *, special: bool = False) -> None:
        """Write what the runner reads, with `special` numbers in it where they can be judged."""

    @abc.abstractmethod
    def judge(self, output: bytes, *, special: bool = False) -> Verdict:
        """What to say of that which the runner made of it."""


class OneKernel(Subject):
    """A kernel on random inputs, judged element by element by its family's bound."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        """A kernel that was built for the target."""
        self._kernel, self._target = kernel, target
        self.name, self.flops = kernel.name, kernel.flops
        self.objects = self.symbols = (kernel.symbol,)
        self.identity = kernel

    def write_input(self, path: Path, *, special: bool = False) -> None:
        """Its operands in order."""
        arrays = check.make_inputs(self._kernel, self._target, special=special)
        path.write_bytes(check.input_bytes(self._kernel, arrays, self._target))

    def judge(self, output: bytes, *, special: bool = False) -> Verdict:
        """By the reference in float64."""
        arrays = check.make_inputs(self._kernel, self._target, special=special)
        return check.judge(self._kernel, arrays, output, self._target)


class WholeRun(Subject):
    """`<library>_run`, judged by a reference that somebody else computed."""

    always = True

    def __init__(
        self, plan: Plan, network: NetworkPlan, reference: whole.Reference, target: Target, place: Path
    ) -> None:
        """The network of a plan; a file of weights, if there is one, lies in `place`."""
        self._network, self._reference, self._target = network, reference, target
        self._weights = None
        if network.weights and network.weights_mode == "file":
            self._weights = place / weights_file(plan.library)
        kernels = {kernel.name: kernel for kernel in plan.kernels}
        self.name = RUN
        self.flops = sum(kernels[call.kernel].flops for call in network.calls)
        own = tuple(kernel.symbol for kernel in plan.kernels)
        run, *parts = run_symbols(plan.library, network)
        self.objects = (*own, run)
        self.symbols = (*own, run, *parts)
        self.identity = (plan, whole.digest(reference))

    def write_input(self, path: Path, *, special: bool = False) -> None:
        """The inputs in order, and the weights that are in a file; `special` ones are the same."""
        del special
        with path.open("wb") as stream:
            stream.write(whole.input_bytes(self._network, self._reference, self._target))
            if self._weights:
                with self._weights.open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)

    def judge(self, output: bytes, *, special: bool = False) -> Verdict:
        """By the reference's outputs."""
        del special
        return whole.judge(self._network, self._reference, output, self._target)
