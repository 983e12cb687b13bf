"""The records of tuning that ship: each is of a kernel of the catalogue, and a build takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.graph.planning import plan
from kernels.models import catalog, read_model
from kernels.program import program_of
from kernels.tuning import RECORDS, read_file, read_records, signature_of, text
from toolchains.bench.tuning import LEAST_GAIN
from toolchains.target import find_target

FILES = sorted(RECORDS.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_records_that_ship_are_of_the_catalogue_and_taken(path: Path) -> None:
    target = find_target(path.stem)
    records = read_records(target.name)
    taken, others = set(), {}
    for model in catalog().values():
        program = program_of(read_model(model))
        for winograd in (False, True):
            for kernel in plan(program, target, records, winograd=winograd).kernels:
                if kernel.record:
                    taken.add(signature_of(kernel))
            for kernel in plan(program, target, winograd=winograd).kernels:
                others[signature_of(kernel)] = kernel.schedule
    assert taken == set(records)
    for line, known in records.items():
        assert known.file == path.name
        assert known.record.schedule != others[line], "the model gives it too"
        assert known.record.gain >= LEAST_GAIN, line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_records_that_ship_are_as_a_search_writes_them(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == text(read_file(path, path.stem))
