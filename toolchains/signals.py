"""What Ctrl-C and SIGTERM do: kept apart, so that a task has it before all that takes time to import."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUSES = tuple(128 + number for number in SIGNALS)


def arm() -> None:
    """From here on either signal raises SystemExit with its status: once, for cleaning up is short."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)
