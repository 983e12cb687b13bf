"""The Docker engine: each step in a container without network, rights or a writable root."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from docker.errors import APIError, DockerException
from docker.types import Ulimit

from kernels.errors import EngineError
from toolchains.cache import ROOT
from toolchains.engines import STEP_TIMEOUT, Surroundings
from toolchains.engines.image import connect, ensure_image, image_tag, packages
from toolchains.engines.local import check_step
from toolchains.engines.pinned import drift, image_pins
from toolchains.process import KEPT_LINES
from toolchains.target import Target

LABEL = "org.kernfit.process"
"""Label of our containers; its value is the process that owns one."""
UNPRIVILEGED = 1000
MEMORY = "6g"
PROCESSES, FILES = 512, 4096
"""Of a step: its memory, swap included; processes and threads at once; open files of each."""
ENVIRONMENT = {
    "PYTHONPATH": "/kernfit",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",  # noqa: S108 - the container's own, not the machine's
    "KERNFIT_ZIG_CACHE": "/tmp/zig",  # noqa: S108
}
"""All that a step has beside the image's PATH: nothing comes from the environment of this process."""


class DockerEngine:
    """Steps in containers of the target's image."""

    name = "docker"
    compiler: Literal["zig", "gcc"] = "gcc"

    def __init__(self) -> None:
        """Connect, and remove containers whose process is gone; EngineError if none answers."""
        try:
            self._client = connect()
            self._sweep()
        except EngineError as error:
            raise EngineError(f"{error}; run `invoke setup`, or use --engine local") from error
        except DockerException as error:
            raise EngineError(f"Docker: {_first_line(error)}") from error
        self._preparing = threading.Lock()
        self._live: dict[str, Any] = {}
        self._closed = False

    def _sweep(self) -> None:
        for container in self._client.containers.list(all=True, filters={"label": LABEL}):
            if not Path(f"/proc/{container.labels[LABEL]}").exists():
                with contextlib.suppress(APIError):
                    container.remove(force=True)

    def prepare(self, target: Target, on_line: Callable[[str], None], *, anew: bool = False) -> None:
        """Build the target's image if it is not there, or `anew` even if it is."""
        try:
            with self._preparing:
                ensure_image(self._client, target, on_line, anew=anew)
        except DockerException as error:
            raise EngineError(f"Docker: {_first_line(error)}") from error

    def identity(self, target: Target) -> str:
        """The engine's name and the image's tag, which is a digest of what it is made from."""
        return f"{self.name} {image_tag(target)}"

    def describe(self, target: Target) -> Surroundings:
        """The image's tag and identifier, and which of its Debian packages are not as pinned."""
        tag = image_tag(target)
        try:
            image = self._client.images.get(tag)
            found = packages(self._client, tag)
        except DockerException as error:
            raise EngineError(f"Docker: {_first_line(error)}") from error
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
        timeout: float = STEP_TIMEOUT,
    ) -> None:
        """Run a step in a container of its own, which is removed whatever happens."""
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        expired = threading.Event()
        try:
            with self._container(module, request, target) as container:

                def expire() -> None:
                    expired.set()
                    with contextlib.suppress(DockerException):
                        container.kill()

                timer = threading.Timer(timeout, expire)
                timer.start()
                try:
                    container.start()
                    for line in _lines(container.logs(stream=True, follow=True)):
                        lines.append(line)
                        if on_line is not None:
                            on_line(line)
                    status = int(container.wait()["StatusCode"])
                finally:
                    timer.cancel()
        except DockerException as error:
            raise EngineError(f"Docker, in {module}: {_first_line(error)}") from error
        check_step(module, status, "\n".join(lines), timed_out=expired.is_set())

    @contextmanager
    def _container(self, module: str, request: Path, target: Target) -> Iterator[Any]:
        if self._closed:
            raise EngineError("the engine was closed")
        folder = request.parent.resolve()
        user, group = os.getuid(), os.getgid()
        if user == 0:
            user = group = UNPRIVILEGED
            os.chown(folder, user, group)
        container = self._client.containers.create(
            image_tag(target),
            ["python3", "-m", module, f"/work/{request.name}"],
            user=f"{user}:{group}",
            working_dir="/kernfit",
            read_only=True,
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,
            mem_limit=MEMORY,
            memswap_limit=MEMORY,
            pids_limit=PROCESSES,
            ulimits=[
                Ulimit(name="nofile", soft=FILES, hard=FILES),
                Ulimit(name="core", soft=0, hard=0),
            ],
            labels={LABEL: str(os.getpid())},
            tmpfs={"/tmp": "size=2g"},  # noqa: S108 - the container's own, not the machine's
            environment=ENVIRONMENT,
            volumes={
                str(ROOT / "kernels"): {"bind": "/kernfit/kernels", "mode": "ro"},
                str(ROOT / "toolchains"): {"bind": "/kernfit/toolchains", "mode": "ro"},
                str(folder): {"bind": "/work", "mode": "rw"},
            },
        )
        self._live[container.id] = container
        try:
            yield container
        finally:
            with contextlib.suppress(APIError):
                container.remove(force=True)
            self._live.pop(container.id, None)

    def close(self) -> None:
        """Remove the containers of steps that still run, and begin no others."""
        self._closed = True
        for container in list(self._live.values()):
            with contextlib.suppress(DockerException):
                container.remove(force=True)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
