"""Who may import whom: the map of the project, held by a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULES = [path for folder in ("kernels", "toolchains") for path in sorted((ROOT / folder).rglob("*.py"))]
TVM = "kernels/codegen/builder.py", "kernels/codegen/generic.py", "kernels/codegen/lower.py"
PRINTING = (
    "kernels/codegen/__main__.py",
    "kernels/pack.py",
    "toolchains/link.py",
    "toolchains/emulate.py",
)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_to_its_room(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    used = imports(path)
    if name not in TVM:
        assert not tops(path) & {"tvm", "tvm_ffi"}, "only code generation imports TVM"
    if name.startswith("kernels/"):
        assert not tops(path) & {"docker", "subprocess", "invoke", "rich"}
        rooms = {module for module in used if module.startswith("toolchains")}
        assert all(module.startswith("toolchains.target") for module in rooms), rooms
    if name.startswith("kernels/schedules/"):
        assert not any(module.startswith("kernels.operators") for module in used)
    if not name.startswith("kernels/models/"):
        assert "onnx" not in tops(path), "only readers know a model's format"
    if not name.startswith("toolchains/engines/"):
        assert "docker" not in tops(path), "only the Docker engine imports docker"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_steps_and_tasks_print(path: Path) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert bool(calls) == (str(path.relative_to(ROOT)) in PRINTING)


def test_schedules_and_operators_name_no_target() -> None:
    targets = [path.stem for path in (ROOT / "toolchains" / "targets").glob("*.toml")]
    for folder in ("schedules", "operators"):
        for path in (ROOT / "kernels" / folder).glob("*.py"):
            words = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not words & set(targets), path
