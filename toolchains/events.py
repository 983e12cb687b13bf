"""What happens in a task, event by event: the one source of the log, the board, the bars and the summary.

A log is a file of JSON lines below `build/logs`, each an Event (`kernels/schemas/event.schema.json`);
beside it lies what tools printed, as text.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

import msgspec

KEPT_LOGS = 50
"""Of earlier runs; the oldest are removed."""

Kind = Literal["begin", "end", "output"]
Step = Literal["task", "build", "image", "compile", "link", "check"]
Outcome = Literal["done", "cached", "skipped", "failed"]


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of the log: something began or ended, or a tool printed a line, which is `detail`.

    `at` is in seconds since the task began. Of what ended, `seconds` say how long it took, `bytes` what
    it made, `memory` the most bytes that a process of it held; those that nobody measured are absent.
    A part of a step that is done for one kernel names the `kernel`; `cached` work was taken from an
    earlier run.
    """

    at: float
    kind: Kind
    step: Step
    library: str = ""
    target: str = ""
    kernel: str = ""
    outcome: Outcome | None = None
    seconds: float | None = None
    bytes: int | None = None
    memory: int | None = None
    detail: str = ""


class Work:
    """A step that has begun. What is set here stands in the event of its end, which `ended` is then."""

    def __init__(self, journal: Journal, step: Step, library: str, target: str) -> None:
        """It is done, unless something else is set."""
        self._journal, self._names = journal, (step, library, target)
        self.outcome: Outcome = "done"
        self.bytes: int | None = None
        self.memory: int | None = None
        self.detail = ""
        self.ended: Event | None = None

    def held(self, memory: int | None) -> None:
        """A process of this step held so many bytes, if that is known."""
        self.memory = max(self.memory or 0, memory or 0) or None

    def part(
        self, kernel: str, outcome: Outcome = "done", *, size: int | None = None, detail: str = ""
    ) -> None:
        """What this step does for one kernel has ended, and made `size` bytes."""
        self._journal.tell("end", *self._names, kernel=kernel, outcome=outcome, bytes=size, detail=detail)

    def output(self, line: str) -> None:
        """A tool has printed a line."""
        self._journal.tell("output", *self._names, detail=line)


class Journal:
    """Tells events to those who listen, and writes them to a log. Several threads may use one."""

    def __init__(self, folder: Path | None = None) -> None:
        """With a folder, the log is a new file in it, `path`."""
        self._listeners: list[Callable[[Event], None]] = []
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._files: tuple[TextIO, TextIO] | None = None
        self.path: Path | None = None
        self.trouble = ""
        """Why the log ended before the task, if it did."""
        if folder is not None:
            try:
                self._open(folder)
            except OSError as error:
                self.trouble = f"{folder}: {error.strerror}"

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.jsonl"))[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
            old.with_suffix(".txt").unlink(missing_ok=True)
        self.path = folder / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.jsonl"
        self._files = (
            self.path.open("w", encoding="utf-8"),
            self.path.with_suffix(".txt").open("w", encoding="utf-8"),
        )

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call the listener for each event from now on."""
        self._listeners.append(listener)

    def tell(
        self,
        kind: Kind,
        step: Step,
        library: str = "",
        target: str = "",
        *,
        kernel: str = "",
        outcome: Outcome | None = None,
        seconds: float | None = None,
        bytes: int | None = None,  # noqa: A002 - the event's own word
        memory: int | None = None,
        detail: str = "",
    ) -> Event:
        """Make an event of now, and tell it."""
        with self._lock:
            event = Event(
                at=round(time.monotonic() - self._started, 4),
                kind=kind,
                step=step,
                library=library,
                target=target,
                kernel=kernel,
                outcome=outcome,
                seconds=seconds,
                bytes=bytes,
                memory=memory,
                detail=detail,
            )
            self._write(event)
        for listener in self._listeners:
            listener(event)
        return event

    def _write(self, event: Event) -> None:
        """To the log; a disk that is full ends the log, and not the task."""
        if self._files is None:
            return
        events, text = self._files
        try:
            events.write(msgspec.json.encode(event).decode() + "\n")
            events.flush()
            if event.kind == "output":
                text.write(f"{event.library} {event.target} {event.step}: {event.detail}\n")
                text.flush()
        except OSError as error:
            self.trouble = f"{self.path}: {error.strerror}"
            self._files = None

    @contextmanager
    def work(self, step: Step, library: str = "", target: str = "", detail: str = "") -> Iterator[Work]:
        """A step, from its beginning to its end; one that raises has failed."""
        started = time.monotonic()
        self.tell("begin", step, library, target, detail=detail)
        work = Work(self, step, library, target)
        try:
            yield work
        except BaseException as error:
            work.outcome, work.detail = "failed", (str(error).splitlines() or [type(error).__name__])[0]
            raise
        finally:
            work.ended = self.tell(
                "end",
                step,
                library,
                target,
                outcome=work.outcome,
                seconds=round(time.monotonic() - started, 4),
                bytes=work.bytes,
                memory=work.memory,
                detail=work.detail,
            )
