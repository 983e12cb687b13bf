"""The page that lists ONNX's operators: how each is taken, and how many of its own tests pass."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from textwrap import fill

from onnx import defs

from kernels.models import contrib, onnx_control, onnx_sequences
from kernels.models.onnx_beyond import BEYOND
from kernels.models.onnx_constants import EXACT, MOVING
from kernels.models.onnx_tail import TAIL
from kernels.operators import importers
from tests.conformance.selection import STATIC, cases

FUNCTION = "by the function that ONNX defines it as"
AHEAD = "when the model is read, of constants"
ELSEWHERE = {
    **dict.fromkeys(
        (*EXACT, *MOVING, "Constant", "ConstantOfShape"), "when the model is read, of constants"
    ),
    **dict.fromkeys(("Shape", "Size"), "when the model is read"),
    **dict.fromkeys(onnx_sequences.HANDLERS, "when the model is read, as the tensors that it holds"),
    **dict.fromkeys(onnx_control.HANDLERS, "written out, iteration by iteration"),
    "If": "the branch that its condition chooses; both, where that is known at run time",
}
"""What has no module of its own, and is taken all the same."""
KNOWN: Mapping[str, tuple[int, ...]] = {
    **STATIC,
    "Loop": (0, 1),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "SplitToSequence": (1,),
}
"""Inputs, by number, that must be known when the library is built."""
NONE = "kernfit has no operator for this type, nor can compute it ahead"

WIDTH = 108

HEAD = """\
# ONNX's operators

Of the {count} operators of ONNX's own domain up to opset {opset}, kernfit takes {taken}.
*How* names the module in `kernels/operators/` that makes kernels of it, or what becomes of it otherwise.
Inputs under *constant* must be known when the library is built: initialisers, or what is computed from
constants and shapes. *Tests* are those of the onnx package that pass, of those that have static shapes and
our [element types](element-types.md); *otherwise* says why the others do not. `invoke inspect mynet.onnx`
says the same of a model's own nodes.

Of other domains kernfit takes a model's own functions, which are written out, and {count_contrib} operators
of onnxruntime's `com.microsoft`, as which its optimiser and its quantiser save models:
{contrib}.

This page is made by `pytest tests/conformance/test_operators_page.py --update-golden`; CI fails where it
is stale.

| operator | how | constant | tests | otherwise |
|---|---|---|---|---|
"""


def page(failures: Mapping[str, str]) -> str:
    """The page's text; `failures` are the reasons of ONNX's tests that do not pass, by their names."""
    tests, reasons = _evidence(failures)
    schemas = {schema.name: schema for schema in defs.get_all_schemas() if not schema.domain}
    rows, taken = [], 0
    for name, schema in sorted(schemas.items()):
        how = _how(schema, tests[name]["passed"])
        if schema.deprecated and not how:
            continue
        taken += bool(how)
        rows.append(" | ".join(_row(schema, how, tests[name], reasons[name])))
    head = HEAD.format(
        count=len(rows),
        opset=defs.onnx_opset_version(),
        taken=taken,
        contrib=fill(", ".join(f"`{name}`" for name in sorted(contrib.FUNCTIONS)), WIDTH),
        count_contrib=len(contrib.FUNCTIONS),
    )
    return head + "".join(f"| {row} |\n" for row in rows)


def _evidence(
    failures: Mapping[str, str],
) -> tuple[Mapping[str, Counter[str]], Mapping[str, dict[str, None]]]:
    """By operator how many of its tests there are and pass, and why others do not, each reason once."""
    tests: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for name, case in cases().items():
        if "_expanded" in name:
            continue
        tests[case.op].update(["all"] if name in failures else ["all", "passed"])
        if name in failures:
            reasons[case.op][failures[name].removeprefix(f"{case.op}: ")] = None
    return tests, reasons


def _how(schema: defs.OpSchema, passed: int) -> str:
    """How an operator is taken; nothing if it is not."""
    own = importers().get(schema.name)
    if own is not None:
        return f"`{own.__module__.rpartition('.')[2]}`"
    if schema.name in TAIL:
        return "[TVM's importer](design.md#nodes-that-no-family-knows)"
    if schema.name in ELSEWHERE:
        return ELSEWHERE[schema.name]
    return FUNCTION if passed and (schema.has_function or schema.has_context_dependent_function) else ""


def _row(
    schema: defs.OpSchema, how: str, tests: Counter[str], reasons: Mapping[str, None]
) -> Iterator[str]:
    yield schema.name
    yield how or "**not taken**"
    yield ", ".join(f"`{schema.inputs[number].name}`" for number in KNOWN.get(schema.name, ()) if how)
    yield f"{tests['passed']} of {tests['all']}" if tests["all"] else ""
    told = list(reasons) or ([] if how else [BEYOND.get(schema.name, "")])
    told = [reason.removeprefix(f"{NONE}; ").replace(NONE, "") for reason in told]
    yield "; ".join(filter(None, told)).replace("|", "\\|")
