"""Progress of long work: bars and a board on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

PLAIN_SECONDS = 10.0
"""Off a terminal, a bar prints a line this often, and at its end."""

State = Literal["waiting", "running", "passed", "skipped", "failed"]
MARKS: dict[State, str] = {
    "waiting": "[dim]·[/]",
    "running": "[cyan]▸[/]",
    "passed": "[green]✓[/]",
    "skipped": "[yellow]○[/]",
    "failed": "[red]✗[/]",
}


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

    def close(self) -> None:
        """Take it off the terminal."""
        if self._rich is not None and self._task is not None:
            self._rich.remove_task(self._task)


class Board:
    """Which of many builds wait, run and have ended: libraries down, targets across."""

    def __init__(self, progress: Progress, rows: Sequence[str], columns: Sequence[str], total: int) -> None:
        """All of them wait."""
        self._progress, self._rows, self._columns, self._total = progress, rows, columns, total
        self._states: dict[tuple[str, str], State] = {}
        self._done = 0

    def begin(self, row: str, column: str) -> None:
        """One has begun."""
        self._states[row, column] = "running"

    def end(self, row: str, column: str, state: State, detail: str) -> None:
        """One has ended; a line says how."""
        self._states[row, column] = state
        self._done += 1
        self._progress.say(
            f"[bold]{self._done}/{self._total}[/bold]  {MARKS[state]} {row} for {column}: {detail}"
        )

    def __rich__(self) -> Table:
        """The table as it is now."""
        table = Table(box=None, header_style="dim", padding=(0, 1))
        table.add_column("")
        for column in self._columns:
            table.add_column(column, justify="center")
        for row in self._rows:
            marks = (MARKS[self._states.get((row, column), "waiting")] for column in self._columns)
            table.add_row(row, *marks)
        return table


class Progress:
    """Where a task tells what it does; on standard error, so that output can be piped.

    Several threads may use one.
    """

    def __init__(self, *, verbose: bool = False, quiet: bool = False) -> None:
        """`verbose` also shows what tools print, `quiet` nothing."""
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._verbose = verbose
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._bars = RichProgress(
            TextColumn("         {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
        )
        self._board: Board | None = None
        self._live: Live | None = None
        self._users = 0

    def say(self, line: str) -> None:
        """A step that has begun or ended."""
        self._console.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/dim]  {line}", soft_wrap=True)

    def step(self, line: str) -> None:
        """A step of one build, which would be a line too many where a board shows many."""
        if self._board is None or self._verbose:
            self.say(line)

    def detail(self, line: str) -> None:
        """A line of a tool's output."""
        if self._verbose:
            self._console.print(f"          {line}", style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar for `total` pieces of work."""
        with self._shown():
            bar = Bar(self, title, total, self._bars if self._console.is_terminal else None)
            try:
                yield bar
            finally:
                bar.close()

    @contextmanager
    def board(self, rows: Sequence[str], columns: Sequence[str], total: int) -> Iterator[Board]:
        """A board for `total` builds, shown above the bars if there is more than one."""
        board = Board(self, rows, columns, total)
        self._board = board if total > 1 else None
        with self._shown():
            try:
                yield board
            finally:
                self._board = None

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Keep the live part of the terminal there while anyone uses it."""
        if not self._console.is_terminal:
            yield
            return
        with self._lock:
            self._users += 1
            if self._live is None:
                self._live = Live(
                    get_renderable=self._picture,
                    console=self._console,
                    refresh_per_second=8,
                    transient=True,
                )
                self._live.start()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._live is not None:
                    self._live.stop()
                    self._live = None

    def _picture(self) -> Group:
        return Group(*([self._board] if self._board else []), self._bars)
