"""What a record of an emulator's bug explains, and what it never does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from kernels.errors import InputError
from toolchains.opinion import settle
from toolchains.quarantine import Bug, known_bugs
from toolchains.report import Report, Row
from toolchains.summary import print_reports

BUG = Bug(
    id="wide-load",
    emulator="qemu-x",
    since=(7, 2),
    fixed=(9, 1),
    status="crash",
    reason="^read or wrote outside",
    instruction="^load ",
    what="it reads too much",
    link="https://example.org/1",
    expires=dt.date(2027, 1, 31),
)
ROW = Row(
    kernel="k",
    target="t",
    cpu="max",
    status="crash",
    reason="read or wrote outside x, behind its end",
    emulator="qemu-x 7.2.22",
)
PASSED = msgspec.structs.replace(ROW, status="pass", reason="", guarded=True)
PLAIN = msgspec.structs.replace(PASSED, guarded=False)
ELSEWHERE = msgspec.structs.replace(PASSED, emulator="a machine")
NOBODY = msgspec.structs.replace(ROW, status="skipped", reason="nothing else here", emulator="")


def settled(
    row: Row,
    second: Row,
    *,
    texts: tuple[str, ...] = ("load a", "stop"),
    plain: Row = PLAIN,
) -> Row:
    """What becomes of a row, given what another emulator says, and this one without guard pages."""

    def ask(kernels: Collection[str], *, other: bool, guards: bool) -> Mapping[str, Row]:
        assert guards == other
        return dict.fromkeys(kernels, second if other else plain)

    return settle({"k": row}, ask, {"k": texts}, bugs=(BUG,))["k"]


def test_a_bug_explains_what_is_right_elsewhere() -> None:
    row = settled(ROW, ELSEWHERE)
    assert (row.status, row.fault, row.quarantine, row.guarded) == ("pass", "emulator", "wide-load", True)


def test_a_bug_explains_what_nobody_else_can_run_but_not_its_guards() -> None:
    row = settled(ROW, NOBODY)
    assert (row.status, row.fault, row.quarantine, row.guarded) == ("pass", "unknown", "wide-load", False)


@pytest.mark.parametrize("version", ["7.1.9", "9.1.0", "10.0.2"])
def test_a_bug_explains_nothing_under_other_versions(version: str) -> None:
    row = settled(msgspec.structs.replace(ROW, emulator=f"qemu-x {version}"), NOBODY)
    assert (row.status, row.quarantine) == ("crash", "")


def test_a_bug_explains_no_kernel_that_fails_elsewhere_too() -> None:
    row = settled(ROW, msgspec.structs.replace(ROW, emulator="a machine"))
    assert (row.status, row.fault, row.quarantine) == ("crash", "kernel", "")


def test_a_bug_explains_no_wrong_result_without_guards() -> None:
    wrong = msgspec.structs.replace(PLAIN, status="wrong", reason="y[0]")
    assert settled(ROW, NOBODY, plain=wrong).status == "crash"


def test_a_bug_explains_no_kernel_without_its_instruction() -> None:
    assert settled(ROW, ELSEWHERE, texts=("stop",)).status == "crash"


@pytest.mark.parametrize(
    "changes", [{"status": "wrong"}, {"reason": "SIGSEGV"}, {"emulator": "qemu-y 8.0.0"}]
)
def test_a_bug_explains_nothing_of_another_kind(changes: dict[str, str]) -> None:
    row = settled(msgspec.structs.replace(ROW, **changes), ELSEWHERE)
    assert (row.fault, row.quarantine) == ("emulator", "")


def test_another_emulator_with_the_same_bug_has_no_opinion() -> None:
    row = settled(ROW, msgspec.structs.replace(ROW, emulator="qemu-x 8.0.0"))
    assert (row.status, row.fault, row.quarantine, row.guarded) == ("pass", "unknown", "wide-load", False)


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bugs.toml"
    path.write_text('[[bug]]\nid = "x"\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"bugs\.toml: .*emulator"):
        known_bugs(path)


def test_the_summary_says_whose_fault_it_is_and_which_bug_is_known() -> None:
    console = Console(record=True, width=200)
    rows = (
        msgspec.structs.replace(ROW, kernel="a", fault="kernel"),
        msgspec.structs.replace(PASSED, kernel="b", quarantine="wide-load"),
        msgspec.structs.replace(PASSED, kernel="c", quarantine="wide-load"),
    )
    print_reports(console, [Report(library="l", target="t", engine="local", rows=rows)])
    told = console.export_text()
    assert "crash: a for t on max: read or wrote outside x, behind its end; the kernel's fault" in told
    assert "2 checks passed on t in spite of a known bug of qemu-x 7.2.22: wide-load" in told
