"""Docker tests need an engine that answers; without one they are skipped, and counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernels.errors import EngineError
from toolchains.engines.docker_engine import DockerEngine


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """The engine of this machine."""
    try:
        engine = DockerEngine()
    except EngineError as error:
        pytest.skip(f"{error}")
    yield engine
    engine.close()
