"""Child processes: in a group of their own, with a time limit, never left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

KEPT_LINES = 40
GRACE_SECONDS = 0.5


_live: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended: its status (negative: the signal), its last lines of output."""

    status: int
    output: str
    timed_out: bool = False


def run(
    command: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    own_group: bool = True,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> Finished:
    """Run a command to its end, and give its merged output.

    Its standard input is empty unless it is a file; where its standard output is one, only
    what it says on standard error is given. On a time-out, an interruption or any other
    exception its whole process group is ended: first asked, then killed; what is left of the
    group once the child has ended is killed too. Without a group of its own it ends with ours,
    and on a time-out alone. A child that others keep from the processor is given more time.
    """
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    with _starting:
        child = subprocess.Popen(  # noqa: S603 - commands are built by us, never by a shell
            list(command),
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.STDOUT if stdout is None else subprocess.PIPE,
            process_group=0 if own_group else None,
        )
        if own_group:
            _live.add(child)
    timed_out = False
    try:
        timed_out = not _follow(child, timeout, lines, on_line)
    finally:
        if child.poll() is None:
            if own_group:
                _end(child)
            else:
                child.kill()
        elif own_group:
            _kill_group(child)
        _live.discard(child)
    return Finished(status=child.wait(), output="\n".join(lines), timed_out=timed_out)


def _follow(
    child: subprocess.Popen[bytes],
    timeout: float,
    lines: deque[str],
    on_line: Callable[[str], None] | None,
) -> bool:
    """Read output until the child closes it and ends; False when time is up."""
    stream = child.stdout or child.stderr
    if stream is None:
        raise ValueError("the child must be started with a pipe for its output")
    rest = b""
    deadline = time.monotonic() + timeout
    with stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 and not _starved(child.pid, timeout):
                return False
            if left <= 0:
                deadline += timeout
            if not selector.select(max(left, 0.0)):
                continue
            data = os.read(stream.fileno(), 65536)
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            for raw in whole:
                _take(raw, lines, on_line)
        if rest:
            _take(rest, lines, on_line)
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _starved(process: int, seconds: float) -> bool:
    """Whether a child would run, and others have left it less than half of these seconds (proc(5))."""
    fields = (
        Path(f"/proc/{process}/stat")
        .read_text(encoding="utf-8", errors="replace")
        .rpartition(")")[2]
        .split()
    )
    state, used = fields[0], int(fields[11]) + int(fields[12])
    return state == "R" and used / os.sysconf("SC_CLK_TCK") < seconds / 2


def _take(raw: bytes, lines: deque[str], on_line: Callable[[str], None] | None) -> None:
    line = raw.decode("utf-8", "replace").rstrip("\r")
    lines.append(line)
    if on_line is not None:
        on_line(line)


def _end(*children: subprocess.Popen[bytes]) -> None:
    """Ask the children's groups to end, all at once, and kill what is left of them."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        _kill_group(child)
    for child in children:
        child.wait()


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class Companion:
    """A child that is there until its input is closed, as the other end of a connection."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the command, in a process group of its own."""
        with _starting:
            self._child = subprocess.Popen(  # noqa: S603 - commands are built by us, never by a shell
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            _live.add(self._child)

    def read_until(self, last: str, timeout: float) -> Finished:
        """What it says up to the line `last`; with its status (not 0) if it ends before."""
        stream = self._child.stdout
        if stream is None:
            raise ValueError("the child must be started with a pipe for its output")
        said = b""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while not said.endswith(f"{last}\n".encode()):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return Finished(status=1, output=said.decode("utf-8", "replace"), timed_out=True)
                data = os.read(stream.fileno(), 65536)
                if not data:
                    status = self._child.wait() or 1
                    return Finished(status=status, output=said.decode("utf-8", "replace"))
                said += data
        return Finished(status=0, output=said.decode("utf-8", "replace"))

    def close(self, timeout: float) -> None:
        """Close its input and wait for its end; when time is up, end it."""
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout)
        if self._child.poll() is None:
            _end(self._child)
        _live.discard(self._child)


def start_no_more() -> None:
    """Let no thread start a child any more, before this process ends: who tries to waits for that."""
    _starting.acquire()


def end_all() -> None:
    """End the children that other threads wait for; those threads then see a signal."""
    _end(*_live)
