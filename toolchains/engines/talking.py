"""Talking with a Docker engine that may be absent, slow, stopped or dying: an answer comes, or an error."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from docker.errors import DockerException
from requests.exceptions import RequestException, Timeout
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as LateError

from kernels.errors import EngineError, KernfitError, ResourceError
from toolchains.limits import VARIABLE, limit
from toolchains.owner import is_foreign, is_gone, owner

LABEL, OWNER = "org.kernfit.process", "org.kernfit.owner"
"""Labels of our containers: the number of the process that owns one, and its name (`toolchains.owner`)."""
TIMEOUTS = Timeout, LateError, TimeoutError
"""What the SDK and what it stands on raise where no answer came in time; some put it in another."""
FULL = "no space left on device"

Answer = TypeVar("Answer")


def labels() -> dict[str, str]:
    """Those of a container of this process."""
    return {LABEL: str(os.getpid()), OWNER: owner()}


def is_orphan(container: Mapping[str, Any], now: float) -> bool:
    """Whether the process that owned a container, as the engine's list describes it, has ended.

    Of another machine's nothing is known: its containers are orphans when no step may last so long.
    """
    name = str(container["Labels"].get(OWNER, ""))
    return is_gone(name) or (is_foreign(name) and now - float(container["Created"]) > 2 * limit("step"))


@contextmanager
def talking(what: str = "") -> Iterator[None]:
    """Every way in which the SDK and what it stands on fail becomes one EngineError, or ResourceError."""
    where = f"Docker, in {what}" if what else "Docker"
    try:
        yield
    except DockerException as error:
        raise _told(where, str(error)) from error
    except (RequestException, HTTPError, ConnectionError, TimeoutError) as error:
        if any(isinstance(each, TIMEOUTS) for each in (error, *error.args)):
            raise EngineError(_silent(where, "", "docker", limit("docker"))) from error
        raise EngineError(
            f"{where}: the engine has stopped answering; see that it runs (`docker info`), "
            "and the same command goes on where it stood, or use --engine local"
        ) from error


def _told(where: str, message: str) -> KernfitError:
    if FULL in message.lower():
        return ResourceError(f"{where}: no space left on its disk; `docker system prune` frees some")
    return EngineError(f"{where}: {message.splitlines()[0]}")


def _silent(where: str, what: str, name: str, seconds: float) -> str:
    return (
        f"{where}: no answer{what} within {seconds:.0f} s; restart the engine, use --engine local, "
        f"or set {VARIABLE}={name}=SECONDS"
    )


def within(name: str, what: str, call: Callable[[], Answer], extra: float = 0.0) -> Answer:
    """What a call gives; EngineError when the limit of that name, and `extra` seconds, are over.

    Streams of the SDK wait without end for a daemon that is there and silent. The call then goes
    on in a thread that does not keep the process.
    """
    outcome: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            outcome.put((None, error))

    threading.Thread(target=answer, daemon=True).start()
    seconds = limit(name) + extra
    try:
        value, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise EngineError(_silent("Docker", f" to {what}", name, seconds)) from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # where there is no error, it is the answer
