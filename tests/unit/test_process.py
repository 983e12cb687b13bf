"""Children are ended in time, with all that they started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from toolchains.process import run


def alive(process: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_output_is_followed_and_the_status_given() -> None:
    lines: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(7)"
    done = run([sys.executable, "-u", "-c", code], timeout=30, on_line=lines.append)
    assert (done.status, lines, done.timed_out) == (7, ["one", "two"], False)


def test_a_child_that_hangs_is_ended_with_its_own_children() -> None:
    lines: list[str] = []
    code = (
        "import subprocess, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    done = run([sys.executable, "-c", code], timeout=2, on_line=lines.append)
    assert done.timed_out
    assert done.status < 0
    deadline = time.monotonic() + 10
    while alive(int(lines[0])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(lines[0]))


def test_standard_input_is_closed_and_signals_are_told() -> None:
    code = "import os, sys; sys.stdin.read() or os.kill(os.getpid(), 11)"
    assert run([sys.executable, "-c", code], timeout=30).status == -11
    assert os.getpid() > 0
