"""Children are ended in time, with all that they started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from toolchains.process import Companion, run


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


def test_a_child_that_others_keep_from_the_processor_is_given_more_time() -> None:
    core = str(min(os.sched_getaffinity(0)))
    spin = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass"
    command = ["taskset", "-c", core, sys.executable, "-c", spin]
    others = [subprocess.Popen([*command, "60"]) for _ in range(7)]
    try:
        assert not run([*command, "0.2"], timeout=0.6).timed_out
        assert run([*command, "60"], timeout=0.6).timed_out, "it had its time, and ends"
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_standard_input_is_closed_and_signals_are_told() -> None:
    code = "import os, sys; sys.stdin.read() or os.kill(os.getpid(), 11)"
    assert run([sys.executable, "-c", code], timeout=30).status == -11
    assert os.getpid() > 0


def test_input_and_output_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\0\n\xff")
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); print('so', file=sys.stderr)"
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as drain:
        done = run([sys.executable, "-c", code], timeout=30, stdin=source, stdout=drain)
    assert (done.status, done.output) == (0, "so")
    assert (tmp_path / "out").read_bytes() == b"\0\n\xff"


TALK = "import sys\nprint('one', flush=True)\nprint('ready', flush=True)\n"


def test_a_companion_is_there_until_its_input_is_closed(tmp_path: Path) -> None:
    code = f"{TALK}sys.stdin.read()\nopen('end', 'w').close()\n"
    companion = Companion([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"])
    told = companion.read_until("ready", timeout=30)
    assert (told.status, told.output) == (0, "one\nready\n")
    assert not (tmp_path / "end").exists()
    companion.close(timeout=30)
    assert (tmp_path / "end").exists()


def test_a_companion_that_ends_too_early_or_never_is_told_of() -> None:
    companion = Companion([sys.executable, "-c", f"{TALK}sys.exit(3)"])
    told = companion.read_until("more", timeout=30)
    assert (told.status, told.output, told.timed_out) == (3, "one\nready\n", False)
    companion.close(timeout=30)
    stubborn = Companion([sys.executable, "-c", f"{TALK}import time; time.sleep(60)"])
    assert stubborn.read_until("more", timeout=1).timed_out
    started = time.monotonic()
    stubborn.close(timeout=0.1)
    assert time.monotonic() - started < 30
