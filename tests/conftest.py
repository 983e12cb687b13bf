"""What all tests share: options, and that a skipped test counts as a failure in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from toolchains.engines.local import LocalEngine
from toolchains.pipeline import Options

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("kernfit", deadline=None)
settings.load_profile("kernfit")
"""No test may fail because a machine is slow."""
SHARING = frozenset(
    f"test_{name}.py" for name in ("counting", "in_place", "operators", "third_party", "threads")
)
"""Files of tests for which the small kernels are built once, for every target (the fixture `edges`)."""
SKIPPED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our own options."""
    parser.addoption("--everything", action="store_true", help="whole listings on every target too")
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test fails the run; CI=true does too"
    )
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected files")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of long tests."""
    config.addinivalue_line("markers", "everything: takes long; runs with --everything")
    config.stash[SKIPPED] = []


class Together(LoadScopeScheduling):
    """Of tests that run side by side, one process has those of a file, and of what files share."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        if "docker" in file.parts:
            return "the Docker engine"
        return "the small kernels" if file.name in SHARING else str(file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """How pytest-xdist hands out tests."""
    return Together(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long tests out unless they were asked for: deselected, which pytest's summary says."""
    if config.getoption("--everything"):
        return
    long = [item for item in items if item.get_closest_marker("everything")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped and CONFIG:
        CONFIG[0].stash[SKIPPED].append(report.nodeid)


CONFIG: list[pytest.Config] = []


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep the configuration for hooks that are not given it."""
    CONFIG[:] = [session.config]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that passed but for skips, where none are allowed."""
    strict = session.config.getoption("--no-skips") or os.environ.get("CI") == "true"
    skipped = session.config.stash[SKIPPED]
    if strict and skipped and exitstatus == 0:
        print(f"\n{len(skipped)} test(s) were skipped, and here none may be: {', '.join(skipped)}")
        session.exitstatus = 1


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    """How to build with the local engine into a folder that goes away."""
    folder = tmp_path_factory.mktemp("session")
    engine = LocalEngine()
    yield Options(engine=engine, jobs=os.cpu_count() or 1, out=folder / "dist", build=folder / "build")
    engine.close()


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares a text with a committed file, or rewrites it."""
    return Golden(update=bool(request.config.getoption("--update-golden")))


class Golden:
    """Expected texts, renewed by `pytest --update-golden`."""

    def __init__(self, *, update: bool) -> None:
        """`update` rewrites instead of comparing."""
        self._update = update

    def check(self, path: Path, text: str) -> None:
        """The file at `path` must hold `text`."""
        if self._update:
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, f"{path.name} has changed: pytest --update-golden"
