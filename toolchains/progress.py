"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

PLAIN_SECONDS = 10.0
"""Off a terminal, a line is printed at the start, the end, and this often between."""


class Bar:
    """One piece of work of known length."""

    def __init__(self, progress: Progress, title: str, total: int, rich: RichProgress | None) -> None:
        """`rich` draws it, if there is a terminal."""
        self._progress, self._title, self._total, self._rich = progress, title, total, rich
        self._task = rich.add_task(title, total=total, what="") if rich else None
        self._done = 0
        self._said = time.monotonic()

    def advance(self, what: str) -> None:
        """One more is done, called `what`."""
        self._done += 1
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, advance=1, what=what)
        elif time.monotonic() - self._said >= PLAIN_SECONDS or self._done == self._total:
            self._said = time.monotonic()
            self._progress.say(f"{self._title} {self._done}/{self._total}")


class Progress:
    """Where a task tells what it does; on standard error, so that output can be piped."""

    def __init__(self, *, verbose: bool = False) -> None:
        """`verbose` also shows what tools print."""
        self._console = Console(stderr=True, highlight=False)
        self._verbose = verbose
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """A step that has begun or ended."""
        self._console.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/dim]  {line}", soft_wrap=True)

    def detail(self, line: str) -> None:
        """A line of a tool's output."""
        if self._verbose:
            self._console.print(f"          {line}", style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar for `total` pieces of work."""
        if not self._console.is_terminal:
            yield Bar(self, title, total, None)
            return
        columns = (
            TextColumn("         {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
        )
        with RichProgress(*columns, console=self._console) as rich:
            yield Bar(self, title, total, rich)
