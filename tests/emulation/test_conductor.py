"""The conductor takes no step's silence for success."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kernels.errors import EngineError
from kernels.models import read_model
from tests.unit.test_listing import gemm, write
from toolchains.engines.local import LocalEngine
from toolchains.pipeline import Options, build
from toolchains.progress import Progress
from toolchains.target import Target, find_target


class Muffled(LocalEngine):
    """A local engine in which what one module says is lost."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = module

    def run(
        self,
        module: str,
        request: Path,
        target: Target,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> int | None:
        heard = None if module == self._module else on_line
        return super().run(module, request, target, on_line=heard, timeout=timeout)


class Idle(LocalEngine):
    """A local engine that does not generate code."""

    def run(self, module: str, request: Path, target: Target, **others: object) -> int | None:
        if module == "kernels.codegen":
            return None
        return super().run(module, request, target, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Muffled("toolchains.emulate"), "ended without a word"), (Idle(), "without an object for g")],
)
def test_a_step_that_says_or_does_nothing_is_an_error(
    engine: LocalEngine, message: str, options: Options, tmp_path: Path
) -> None:
    program = read_model(write(tmp_path, gemm()))
    quiet = msgspec.structs.replace(options, engine=engine, out=tmp_path / "out", build=tmp_path / "build")
    with pytest.raises(EngineError, match=message):
        build(program, find_target("riscv64"), quiet, Progress())
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "build" / "riscv64").exists()
    assert not list((tmp_path / "build" / "tmp").iterdir())
