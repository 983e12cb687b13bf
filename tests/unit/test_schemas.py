"""The committed JSON Schemas are those of the types, and what is written fits them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from kernels.graph.planning import plan
from kernels.manifest import Manifest, Measured, manifest_of
from kernels.models import catalog, read_model
from kernels.plan import Plan
from kernels.program import Program
from kernels.schemas import FOLDER, schema_text
from tests.conftest import Golden
from tests.targets import FEW_AT_FIRST
from toolchains.bench.results import Bench
from toolchains.events import Event
from toolchains.report import Report, Row
from toolchains.target import Target

KINDS: dict[str, Any] = {
    "program": Program,
    "plan": Plan,
    "manifest": Manifest,
    "report": Report,
    "bench": Bench,
    "target": Target,
    "event": Event,
}


@pytest.mark.parametrize("name", KINDS)
def test_the_committed_schema_is_that_of_the_type(name: str, golden: Golden) -> None:
    golden.check(FOLDER / f"{name}.schema.json", schema_text(KINDS[name]))


def fits(name: str, value: Any) -> None:
    """The value, as it is written, fits the committed schema; and comes back the same."""
    raw = msgspec.json.encode(value)
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(raw), schema)
    assert msgspec.json.decode(raw, type=KINDS[name]) == value


@pytest.mark.parametrize("name", catalog())
@pytest.mark.parametrize("target", FEW_AT_FIRST)
def test_what_is_made_of_the_catalogue_fits(name: str, target: Target) -> None:
    program = read_model(catalog()[name])
    fits("program", program)
    planned = plan(program, target)
    fits("plan", planned)
    measured = Measured(code_bytes=1, constant_bytes=2, stack_bytes=3)
    fits("manifest", manifest_of(planned, target, {k.symbol: measured for k in planned.kernels}, {}))
    fits("target", target)


def test_a_report_fits() -> None:
    rows = (Row(kernel="k", target="t", cpu="max", status="skipped", reason="no emulator"),)
    fits("report", Report(library="l", target="t", engine="local", rows=rows))


def test_a_wrong_file_does_not_fit() -> None:
    schema = json.loads((FOLDER / "report.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {"library": "l", "target": "t", "engine": "e", "rows": [{"kernel": "k"}]}, schema
        )
