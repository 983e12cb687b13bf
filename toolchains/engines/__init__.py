"""Engines: where a build step runs. A step is `python -m MODULE REQUEST.json`, on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from toolchains.target import Target


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What steps ran in: an image by tag and digest, if any, and how it differs from the pins."""

    engine: str
    """Its name alone."""
    image: str = ""
    digest: str = ""
    unpinned: tuple[str, ...] = ()


class Engine(Protocol):
    """What the conductor needs of an engine. Several threads may use one."""

    name: str
    compiler: Literal["zig", "gcc"]

    def prepare(self, target: Target, on_line: Callable[[str], None], *, anew: bool = False) -> None:
        """Make ready what steps for the target need; an image, for instance, anew if asked."""

    def identity(self, target: Target) -> str:
        """What a result may depend on: the engine's name and the version of its parts."""

    def describe(self, target: Target) -> Surroundings:
        """What steps for a prepared target run in."""

    def run(
        self,
        module: str,
        request: Path,
        target: Target,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Run a step for a prepared target; the most memory that it held, in bytes, if that is known.

        It may write in the request's folder only, and take the limit `step` or `timeout` seconds.

        EngineError if it fails, or if the engine was closed.
        """

    def close(self) -> None:
        """End the steps that still run, and begin no others."""
