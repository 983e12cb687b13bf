"""The version of the C ABI: in header and manifest, and another one where a released header changes.

`pytest tests/unit/test_abi.py --update-golden` renews abi.json, unless that is what it forbids.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec
import pytest

from kernels.codegen.header import header
from kernels.codegen.interface import ABI_VERSION
from kernels.graph.planning import plan
from kernels.manifest import Measured, manifest_of
from kernels.models import catalog, read_model
from kernels.plan import Plan
from tests.conftest import ROOT
from tests.unit.test_listing import gemm, write
from toolchains.making import VERSION
from toolchains.release import SECTION
from toolchains.target import Target, all_targets, find_target

GOLDEN = Path(__file__).parent / "abi.json"
TARGET = find_target("riscv64")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interfaces of the catalogue's libraries, by library and target, as `kernfit` had them."""

    kernfit: str
    abi: int
    interfaces: dict[str, dict[str, str]]


def interface_sha256(made: Plan, target: Target) -> str:
    """SHA-256 of all that a program which was compiled with the header relies on.

    These are the header's declarations and constants, without its comments; and what only comments
    say: the order of elements in packed operands, and which buffers may be the same.
    """
    code = " ".join(COMMENT.sub(" ", header(made, target, "")).split())
    code = re.sub(r"#define \w+_ABI_VERSION \d+", "", code)
    unwritten = [(kernel.symbol, kernel.operands, kernel.in_place) for kernel in made.kernels]
    return hashlib.sha256(code.encode() + msgspec.json.encode(unwritten)).hexdigest()[:16]


def fault(known: Known, now: Known, *, released: bool) -> str:
    """Why what is known may not become what is now; empty if it may."""
    for library, targets in known.interfaces.items():
        for target, sha256 in targets.items():
            if now.interfaces.get(library, {}).get(target) != sha256 and released and now.abi <= known.abi:
                return (
                    f"the header of {library} for {target} is not that of kernfit {known.kernfit}, which "
                    "is released: raise ABI_VERSION in kernels/codegen/interface.py"
                )
    return "ABI_VERSION went back" if now.abi < known.abi else ""


def is_released(version: str) -> bool:
    return version in dict(SECTION.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))


def test_a_changed_header_of_a_released_model_has_another_version(request: pytest.FixtureRequest) -> None:
    known = msgspec.json.decode(GOLDEN.read_bytes(), type=Known)
    now = Known(
        kernfit=VERSION,
        abi=ABI_VERSION,
        interfaces={
            name: {
                target.name: interface_sha256(plan(read_model(path), target), target)
                for target in all_targets().values()
            }
            for name, path in catalog().items()
        },
    )
    assert not fault(known, now, released=is_released(known.kernfit))
    if request.config.getoption("--update-golden"):
        GOLDEN.write_bytes(msgspec.json.format(msgspec.json.encode(now), indent=1) + b"\n")
    elif now.interfaces != known.interfaces or now.abi != known.abi:
        pytest.fail("headers are not those of abi.json: if that was the purpose, pytest --update-golden")


@pytest.mark.parametrize(
    ("interfaces", "abi", "released", "fine"),
    [
        ({"a": {"x": "1"}}, 1, True, True),
        ({"a": {"x": "1", "y": "9"}, "b": {"x": "2"}}, 1, True, True),
        ({"a": {"x": "2"}}, 1, True, False),
        ({"a": {}}, 1, True, False),
        ({}, 1, True, False),
        ({"a": {"x": "2"}}, 2, True, True),
        ({"a": {"x": "2"}}, 1, False, True),
        ({"a": {"x": "1"}}, 0, True, False),
    ],
)
def test_a_release_fixes_what_its_headers_say(
    interfaces: dict[str, dict[str, str]], abi: int, released: bool, fine: bool
) -> None:
    known = Known(kernfit="1.0.0", abi=1, interfaces={"a": {"x": "1"}})
    now = Known(kernfit="1.1.0", abi=abi, interfaces=interfaces)
    assert (fault(known, now, released=released) == "") is fine


def planned(folder: Path, **changes: str) -> Plan:
    folder.mkdir()
    return plan(read_model(write(folder, gemm(**changes))), TARGET)


def test_an_interface_is_what_a_compiled_caller_relies_on(tmp_path: Path) -> None:
    made = planned(tmp_path / "1")
    others = [
        planned(tmp_path / "2", n="7"),
        planned(tmp_path / "3", fuse='["bias"]'),
        msgspec.structs.replace(made, library="u"),
        msgspec.structs.replace(
            made, kernels=tuple(msgspec.structs.replace(k, arena_bytes=99 << 10) for k in made.kernels)
        ),
        msgspec.structs.replace(
            made, kernels=tuple(msgspec.structs.replace(k, in_place="bias") for k in made.kernels)
        ),
    ]
    sums = [interface_sha256(each, TARGET) for each in (made, *others)]
    assert len(set(sums)) == len(sums)
    reworded = msgspec.structs.replace(made, source="another paper")
    assert interface_sha256(reworded, TARGET) == sums[0]


def test_header_and_manifest_tell_the_version(tmp_path: Path) -> None:
    made = planned(tmp_path / "1")
    assert f"\n#define T_ABI_VERSION {ABI_VERSION}\n" in header(made, TARGET, "0")
    measured = Measured(code_bytes=1, constant_bytes=2, stack_bytes=3)
    manifest = manifest_of(made, TARGET, {k.symbol: measured for k in made.kernels}, {})
    assert manifest.abi == ABI_VERSION
