"""How many processors a build may use: a number that can grow while its steps run in other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchains.scratch import write_whole


class Share:
    """So many processors; files tell steps that have begun when it becomes more."""

    def __init__(self, count: int) -> None:
        """`count` processors to begin with."""
        self.count = count
        self._files: list[Path] = []
        self._lock = threading.Lock()

    def grow(self) -> None:
        """One processor more."""
        with self._lock:
            self.count += 1
            for path in self._files:
                self._tell(path)

    @contextmanager
    def told_in(self, path: Path) -> Iterator[None]:
        """Keep a file that says how many there are."""
        with self._lock:
            self._files.append(path)
            self._tell(path)
        try:
            yield
        finally:
            with self._lock:
                self._files.remove(path)

    def _tell(self, path: Path) -> None:
        write_whole(path, str(self.count).encode(), durable=False)


def told(path: Path) -> int:
    """The number that such a file says now."""
    return int(path.read_bytes())
