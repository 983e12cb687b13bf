"""A signal that came decides how a task ends, whatever becomes of the exception that it raises."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from toolchains.cache import ROOT

TASK = """
import time
from invoke.context import Context
from tasks import task
from toolchains import signals
signals.AGAIN_SECONDS = 0.2

@task()
def work(c):
    print("begun", flush=True)
    {body}

work(Context())
"""
BEFORE = """
import time
from toolchains import signals
signals.arm()
print("begun", flush=True)
time.sleep(60)
"""
BODIES = {
    "as it came": "time.sleep(60)",
    "another error in its place": """
    try:
        time.sleep(60)
    finally:
        {}.pop("gone")""",
    "lost, as in a finalizer": """
    try:
        time.sleep(60)
    except SystemExit:
        time.sleep(60)""",
    "lost at the end": """
    try:
        time.sleep(60)
    except SystemExit:
        pass""",
}


def interrupted(script: str, number: signal.Signals) -> tuple[int, str]:
    """Status and last words of a script that gets a signal once it has printed a line."""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            child.send_signal(number)
            _, said = child.communicate(timeout=50)
        finally:
            child.kill()
    return child.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_task_ends_with_the_status_of_the_signal(body: str, number: signal.Signals) -> None:
    ended = interrupted(TASK.format(body=body), number)
    assert ended == (128 + number, "interrupted: nothing half-written is left\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_before_a_task_has_begun_it_ends_the_process(number: signal.Signals) -> None:
    assert interrupted(BEFORE, number) == (128 + number, "")
