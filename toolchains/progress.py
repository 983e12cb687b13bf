"""Progress of long work: bars and a board on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from toolchains.events import Event, Journal, Outcome, Step, Work

TITLES = {"compile": "compiling", "check": "checking"}
"""What bars call the steps."""
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
STATES: dict[Outcome, State] = {
    "done": "passed",
    "cached": "passed",
    "skipped": "skipped",
    "failed": "failed",
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
        self.many = total > 1
        self._states: dict[tuple[str, str], State] = {}
        self._done = 0

    def take(self, event: Event) -> None:
        """Show that a build has begun; or that it has ended, of which a line says how."""
        if event.step != "build":
            return
        state = STATES[event.outcome] if event.outcome else "running"
        self._states[event.library, event.target] = state
        if event.kind == "end":
            self._done += 1
            took = "cached" if event.outcome == "cached" else f"{event.seconds or 0.0:.0f} s"
            self._progress.say(
                f"[bold]{self._done}/{self._total}[/bold]  {MARKS[state]} {event.library} for "
                f"{event.target}: {escape(event.detail)}, {took}"
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
    """Where a task tells what it does: in events, and on standard error, so that output can be piped.

    Several threads may use one.
    """

    def __init__(
        self, *, verbose: bool = False, quiet: bool = False, journal: Journal | None = None
    ) -> None:
        """`verbose` also shows what tools print, `quiet` nothing; the journal has a log, or none."""
        self.journal = journal or Journal()
        self.journal.listen(self._take)
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
        self._open: dict[tuple[str, str, str], Bar] = {}
        self._live: Live | None = None
        self._users = 0

    def say(self, line: str) -> None:
        """A step that has begun or ended."""
        self._console.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/dim]  {line}", soft_wrap=True)

    def step(self, line: str) -> None:
        """A step of one build, which would be a line too many where a board shows many."""
        if self._board is None or not self._board.many or self._verbose:
            self.say(line)

    def detail(self, line: str) -> None:
        """A line of a tool's output."""
        if self._verbose:
            self._console.print(f"          {line}", style="dim", markup=False, soft_wrap=True)

    def _take(self, event: Event) -> None:
        """Show an event where there is a place for it."""
        if event.kind == "output":
            self.detail(event.detail)
        elif event.kernel and event.outcome != "cached":
            bar = self._open.get((event.step, event.library, event.target))
            if bar is not None:
                bar.advance(f"{event.kernel} {event.detail}".rstrip())
        elif self._board is not None:
            self._board.take(event)

    @contextmanager
    def work(self, step: Step, library: str, target: str, total: int = 0) -> Iterator[Work]:
        """A step; with a bar, if it has several parts that are not cached."""
        with ExitStack() as stack:
            if total:
                title = f"{library} for {target}: {TITLES[step]}"
                self._open[step, library, target] = stack.enter_context(self.bar(title, total))
            try:
                yield stack.enter_context(self.journal.work(step, library, target))
            finally:
                self._open.pop((step, library, target), None)

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
    def board(self, rows: Sequence[str], columns: Sequence[str], total: int) -> Iterator[None]:
        """A board for `total` builds, shown above the bars if there is more than one."""
        self._board = Board(self, rows, columns, total)
        with self._shown():
            try:
                yield
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
        return Group(*([self._board] if self._board and self._board.many else []), self._bars)
