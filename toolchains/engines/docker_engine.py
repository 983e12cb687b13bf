"""The Docker engine: each step in a container without network, rights or a writable root."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from docker.errors import APIError
from docker.types import Ulimit

from kernels.errors import EngineError, KernfitError
from toolchains.cache import ROOT
from toolchains.engines import Surroundings, cage
from toolchains.engines.image import connect, ensure_image, image_tag, packages
from toolchains.engines.local import check_step
from toolchains.engines.pinned import drift, image_pins
from toolchains.engines.talking import LABEL, is_orphan, labels, talking, within
from toolchains.limits import limit, passed_on
from toolchains.process import KEPT_LINES
from toolchains.step import peak_of
from toolchains.target import Target

UNPRIVILEGED = 1000
"""The user and the group of steps where this process is root's."""
WORK, SOURCES = "/work", "/kernfit"
"""Where a step finds its job's folder and this project's code."""
CLOSE_SECONDS = 10.0
"""Containers that take longer to be removed, as of an engine that is stuck, are left to the next run."""
NOT_RUN = (126, 127)
"""How a container ends whose program cannot be run (timeout(1)); no step of ours ends so."""
ORPHAN_SECONDS = 60
"""A container ends by itself so long after the step's limit, for when nobody is left to end it."""


class DockerEngine:
    """Steps in containers of the target's image."""

    name = "docker"
    compiler: Literal["zig", "gcc"] = "gcc"

    def __init__(self) -> None:
        """Connect, and remove containers whose process is gone; EngineError if none answers."""
        try:
            self._client = connect()
            within("docker", "a list of containers", self._sweep)
        except EngineError as error:
            raise EngineError(f"{error}; run `invoke setup`, or use --engine local") from error
        self._preparing = threading.Lock()
        self._creating = threading.Lock()
        self._live: dict[str, Any] = {}
        self._closed = False

    def _sweep(self) -> None:
        with talking("looking for what a killed run left"):
            for found in self._client.api.containers(all=True, filters={"label": LABEL}):
                if is_orphan(found, time.time()):
                    with contextlib.suppress(APIError):
                        self._client.api.remove_container(found["Id"], force=True, v=True)

    def prepare(self, target: Target, on_line: Callable[[str], None], *, anew: bool = False) -> None:
        """Build the target's image if it is not there, or `anew` even if it is."""
        with self._preparing, talking("making an image"):
            ensure_image(self._client, target, on_line, anew=anew)

    def identity(self, target: Target) -> str:
        """The engine's name and the image's tag, which is a digest of what it is made from."""
        return f"{self.name} {image_tag(target)}"

    def describe(self, target: Target) -> Surroundings:
        """The image's tag and identifier, and which of its Debian packages are not as pinned."""
        tag = image_tag(target)
        with talking("describing an image"):
            image = self._client.images.get(tag)
            found = packages(self._client, tag)
        return Surroundings(
            engine=self.name, image=tag, digest=image.id, unpinned=tuple(drift(found, image_pins()))
        )

    def run(
        self,
        module: str,
        request: Path,
        target: Target,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Run a step in a container of its own, which is removed whatever happens."""
        seconds = limit("step") if timeout is None else timeout
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        expired = threading.Event()
        peak: list[int] = []

        def follow() -> int:
            with talking(module):
                container.start()
                for line in _lines(container.logs(stream=True, follow=True)):
                    told = peak_of(line)
                    if told is not None:
                        peak.append(told)
                        continue
                    lines.append(line)
                    if on_line is not None and not expired.is_set():
                        on_line(line)
                return int(container.wait()["StatusCode"])

        def expire() -> None:
            expired.set()
            with contextlib.suppress(KernfitError), talking():
                container.kill()

        with talking(module), self._container(module, request, target, seconds) as container:
            timer = threading.Timer(seconds, expire)
            timer.daemon = True
            timer.start()
            try:
                status = within("docker", f"the end of {module}", follow, seconds)
            finally:
                timer.cancel()
        if status in NOT_RUN:
            raise EngineError(
                f"Docker, in {module}: {lines[-1] if lines else 'nothing was run'}; the image is damaged: "
                "`invoke images --anew` makes it again"
            )
        check_step(module, status, "\n".join(lines), timed_out=expired.is_set())
        return peak[-1] if peak else None

    @contextmanager
    def _container(self, module: str, request: Path, target: Target, seconds: float) -> Iterator[Any]:
        folder = request.parent.resolve()
        user, group = os.getuid(), os.getgid()
        if user == 0:
            user = group = UNPRIVILEGED
            os.chown(folder, user, group)
        step = ["python3", "-m", "toolchains.step", module, f"{WORK}/{request.name}"]
        with self._creating:
            if self._closed:
                raise EngineError("the engine was closed")
            container = self._client.containers.create(
                image_tag(target),
                ["timeout", "--kill-after=10", str(int(seconds) + ORPHAN_SECONDS), *step],
                user=f"{user}:{group}",
                working_dir=SOURCES,
                read_only=True,
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                init=True,
                mem_limit=cage.MEMORY,
                memswap_limit=cage.MEMORY,
                pids_limit=cage.PROCESSES,
                ulimits=[
                    Ulimit(name="nofile", soft=cage.FILES, hard=cage.FILES),
                    Ulimit(name="core", soft=0, hard=0),
                ],
                labels=labels(),
                tmpfs={cage.ENVIRONMENT["HOME"]: f"size={cage.SCRATCH}"},
                environment={"PYTHONPATH": SOURCES, **cage.ENVIRONMENT, **passed_on()},
                volumes={
                    **{str(ROOT / name): {"bind": f"{SOURCES}/{name}", "mode": "ro"} for name in cage.CODE},
                    str(folder): {"bind": WORK, "mode": "rw"},
                },
            )
            self._live[container.id] = container
        try:
            yield container
        finally:
            if self._live.pop(container.id, None) is not None:
                _remove(container)

    def close(self) -> None:
        """Remove the containers of steps that still run, and begin no others."""
        self._closed = True
        if self._creating.acquire(timeout=CLOSE_SECONDS):
            self._creating.release()
        left = [container for name in list(self._live) if (container := self._live.pop(name, None))]
        threads = [threading.Thread(target=_remove, args=(each,), daemon=True) for each in left]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _remove(container: Any) -> None:
    """Remove a container; one that is gone, or whose engine is, is left to the next run."""
    with contextlib.suppress(KernfitError), talking():
        container.remove(force=True, v=True)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace")
