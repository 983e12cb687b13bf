"""The version of the C ABI: in header and manifest, and another one where a released header changes.

`pytest tests/unit/test_abi.py --update-golden` renews abi.json, unless that is what it forbids.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import msgspec
import onnx
import pytest
from onnx import helper

from kernels.codegen.header import header
from kernels.codegen.interface import ABI_VERSION
from kernels.graph.network import plan_network
from kernels.graph.planning import plan
from kernels.manifest import Measured, manifest_of
from kernels.models import catalog, read_model
from kernels.plan import Plan
from kernels.program import Network
from kernels.tuning import read_records
from tests import networks
from tests.conftest import ROOT
from tests.unit.test_listing import gemm, write
from toolchains.making import VERSION
from toolchains.pipeline import bring
from toolchains.release import SECTION
from toolchains.target import Target, all_targets, find_target

GOLDEN = Path(__file__).parent / "abi.json"
TARGET = find_target("riscv64")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interfaces of the catalogue's libraries and of a network, by library and target.

    `kernfit` is the version that had them.
    """

    kernfit: str
    abi: int
    interfaces: dict[str, dict[str, str]]


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What interfaces are `now`, and what they were in the last version that was released, if any was."""

    released: Known | None
    now: Known

    def binding(self) -> Known | None:
        """What may not change without another number: headers that people have."""
        return self.now if is_released(self.now.kernfit) else self.released


def interface_sha256(made: Plan, target: Target) -> str:
    """SHA-256 of all that a program which was compiled with the header relies on.

    These are the header's declarations and constants, without its comments; and what only comments
    say: the order of elements in packed operands, and which buffers may be the same.
    """
    code = " ".join(COMMENT.sub(" ", header(made, target, "")).split())
    code = re.sub(r"#define \w+_ABI_VERSION \d+", "", code)
    unwritten: list[object] = [(kernel.symbol, kernel.operands, kernel.in_place) for kernel in made.kernels]
    if made.network is not None:
        unwritten.append((made.network.inputs, made.network.outputs))
    return hashlib.sha256(code.encode() + msgspec.json.encode(unwritten)).hexdigest()[:16]


def fault(released: Known, now: Known) -> str:
    """Why what was released may not become what is now; empty if it may."""
    for library, targets in released.interfaces.items():
        for target, sha256 in targets.items():
            if now.interfaces.get(library, {}).get(target) != sha256 and now.abi <= released.abi:
                return (
                    f"the header of {library} for {target} is not that of kernfit {released.kernfit}, "
                    "which is released: raise ABI_VERSION in kernels/codegen/interface.py"
                )
    return "ABI_VERSION went back" if now.abi < released.abi else ""


def is_released(version: str) -> bool:
    return version in dict(SECTION.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))


def as_released(path: Path, target: Target) -> Plan:
    """The plan of `invoke release`, by the records of tuning that ship."""
    model, records = bring(path), read_records(target.name)
    if isinstance(model, Network):
        return plan_network(model, target, records)
    return plan(model, target, records)


def a_network(folder: Path) -> Path:
    """A small network, whose header has what those of listings lack: structures and a run."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["y"], "pool"),
    ]
    constants = {"w": networks.weights("w", (8, 3, 3, 3)), "b": networks.weights("b", (8,))}
    path = folder / "a_network.onnx"
    onnx.save(networks.model(nodes, {"x": (1, 3, 12, 12)}, ["y"], constants), path)
    return path


def test_a_changed_header_of_a_released_model_has_another_version(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ledger = msgspec.json.decode(GOLDEN.read_bytes(), type=Ledger)
    paths = {**catalog(), "a_network": a_network(tmp_path)}
    now = Known(
        kernfit=VERSION,
        abi=ABI_VERSION,
        interfaces={
            name: {
                target.name: interface_sha256(as_released(path, target), target)
                for target in all_targets().values()
            }
            for name, path in paths.items()
        },
    )
    released = ledger.binding()
    assert released is None or not fault(released, now)
    if request.config.getoption("--update-golden"):
        renewed = Ledger(released=released, now=now)
        GOLDEN.write_bytes(msgspec.json.format(msgspec.json.encode(renewed), indent=1) + b"\n")
    elif now.interfaces != ledger.now.interfaces or now.abi != ledger.now.abi:
        pytest.fail("headers are not those of abi.json: if that was the purpose, pytest --update-golden")


@pytest.mark.parametrize(
    ("interfaces", "abi", "fine"),
    [
        ({"a": {"x": "1"}}, 1, True),
        ({"a": {"x": "1", "y": "9"}, "b": {"x": "2"}}, 1, True),
        ({"a": {"x": "2"}}, 1, False),
        ({"a": {}}, 1, False),
        ({}, 1, False),
        ({"a": {"x": "2"}}, 2, True),
        ({"a": {"x": "1"}}, 0, False),
    ],
)
def test_a_release_fixes_what_its_headers_say(
    interfaces: dict[str, dict[str, str]], abi: int, fine: bool
) -> None:
    released = Known(kernfit="1.0.0", abi=1, interfaces={"a": {"x": "1"}})
    now = Known(kernfit="1.1.0", abi=abi, interfaces=interfaces)
    assert (fault(released, now) == "") is fine


def test_what_was_released_binds_until_the_next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    changelog = {"1.0.0"}
    monkeypatch.setattr(sys.modules[__name__], "is_released", changelog.__contains__)
    first, second = (
        Known(kernfit=version, abi=1, interfaces={"a": {"x": sha256}})
        for version, sha256 in (("1.0.0", "1"), ("1.1.0", "2"))
    )
    assert Ledger(released=None, now=first).binding() == first
    assert Ledger(released=first, now=second).binding() == first
    assert Ledger(released=None, now=second).binding() is None
    changelog.add("1.1.0")
    assert Ledger(released=first, now=second).binding() == second


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
