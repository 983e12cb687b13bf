"""Readers under libFuzzer: `python -m tests.fuzz.run FOLDER AMOUNT SEED [READER] [FILES]`.

The amount is a number of inputs for each reader, or seconds as in `3600s`. In FOLDER each reader has a
folder, with its corpus and with what made it fail: it goes on after that, and one input of each kind is
kept. A line tells how many inputs it was given. The same seed begins with the same ones; 0 is another in
each run. Files are given to the one reader instead, one by one.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["kernels", "toolchains"]):
    from kernels.errors import InputError
    from tests.fuzz.readers import READERS, Reader

MEMORY = 1 << 30
"""Bytes that an input may take, beside what this process takes without one."""
SECONDS = 30
"""That an input may take."""
LARGEST_INPUT = 1 << 16
OWN = 0.5
"""Share of the inputs that libFuzzer changes by itself."""
CORPUS = "corpus"
"""In a reader's folder."""
MOST_LINES = 200
"""Of a reader's output, where it failed."""
WIDE = 10_000
"""From so many inputs on, or without a number of them, a reader's further seeds are used too."""
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
"""Where inputs are written, if it is there: on a disk each costs milliseconds."""
PLACES = (Path(__file__).resolve().parents[2], sys.prefix, sys.base_prefix, tempfile.gettempdir(), "/proc")
FORBIDDEN = ("os.exec", "os.fork", "os.system", "pickle.find_class", "socket.connect", "subprocess.Popen")


class Escaped(BaseException):
    """A reader did what no reader may: nothing catches this on its way."""


def watch(*folders: Path) -> None:
    """From now on no process is begun, nothing unpickled, and files are written in these folders alone.

    Nor is any read but there, of Python's own, and of this project.
    """
    inside = tuple(os.path.realpath(folder) + os.sep for folder in folders)
    readable = tuple(os.path.realpath(place) + os.sep for place in PLACES)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            raise Escaped(f"{event} {arguments}")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not path.startswith(inside) and (writes or not path.startswith(readable)):
                raise Escaped(f"open {path}")

    sys.addaudithook(audit)


def fault_of(reader: Reader, path: Path) -> str:
    """What the reader ought not to have done with a file; empty if all is well."""
    try:
        reader.read(path)
    except InputError as error:
        return "" if len(str(error).splitlines()) == 1 else f"not one line: {str(error)!r}"
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever it is
        return traceback.format_exc()
    return ""


def kind_of(fault: str) -> str:
    """What faults of one cause have in common: where it was raised, and the exception's name."""
    places = re.findall(r'^  File "(.+)", line (\d+)', fault, re.MULTILINE)
    return " ".join((*(places[-1] if places else ()), fault.splitlines()[-1].partition(":")[0]))


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How long a reader is tried: so many inputs, or so many seconds."""

    inputs: int = sys.maxsize
    seconds: float = float("inf")

    @classmethod
    def of(cls, word: str) -> Amount:
        """Of `1000`, or of `60s`."""
        return cls(seconds=float(word[:-1])) if word.endswith("s") else cls(inputs=int(word))


def fuzz(reader: Reader, folder: Path, work: Path, amount: Amount, seed: str, files: list[str]) -> None:
    """Fuzz until that is done, or give the reader these files; and end the process at once.

    Not by way of libFuzzer's end, where libraries wait for threads that a forked process has not.
    """
    path = work / reader.name
    begin, count = time.monotonic(), 0
    kinds: set[str] = set()

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        path.write_bytes(data)
        fault = fault_of(reader, path)
        if fault and kind_of(fault) not in kinds:
            kinds.add(kind_of(fault))
            found = folder / f"failed-{hashlib.sha256(data).hexdigest()[:12]}"
            found.write_bytes(data)
            print(f"{fault}\nby {found}")
        for each in work.iterdir():
            each.unlink()
        done = count >= amount.inputs or time.monotonic() - begin > amount.seconds
        if done or (kinds and files):
            print(f"{count} inputs", flush=True)
            os._exit(1 if kinds else 0)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        generator = random.Random(seed)  # noqa: S311 - the same input must give the same one again
        if generator.random() < OWN:
            return bytes(atheris.Mutate(data, most))
        found = reader.mutate(data, generator, lambda part, size: bytes(atheris.Mutate(part, max(1, size))))
        return found if len(found) <= most else bytes(atheris.Mutate(data, most))

    options = [
        f"-artifact_prefix={folder}/",
        f"-max_len={LARGEST_INPUT}",
        f"-timeout={SECONDS}",
        "-rss_limit_mb=0",
        "-len_control=0",
    ]
    given = files or [str(folder / CORPUS)]
    atheris.Setup([sys.argv[0], *options, seed, *given], one, custom_mutator=mutate)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    size = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    watch(folder, work)
    atheris.Fuzz()


def run(reader: Reader, folder: Path, amount: Amount, seed: str, files: list[str]) -> bool:
    """Fuzz in a process of its own, and tell how many inputs there were; whether all went well."""
    corpus = folder / CORPUS
    corpus.mkdir(parents=True, exist_ok=True)
    beginnings = [*reader.seeds(), *(reader.more_seeds() if amount.inputs >= WIDE else ())]
    for number, data in enumerate(beginnings):
        (corpus / f"seed{number}").write_bytes(data)
    log = folder / "log"
    place = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else folder
    with tempfile.TemporaryDirectory(prefix="kernfit-fuzz-", dir=place) as work:
        status = _forked(lambda: fuzz(reader, folder, Path(work), amount, seed, files), log)
    told = log.read_text(encoding="utf-8", errors="replace")
    inputs = re.search(r"^(\d+) inputs$", told, re.MULTILINE)
    print(f"{reader.name}: {inputs[1] if inputs else 0} inputs, status {status}", flush=True)
    if status:
        lines = [line for line in told.splitlines() if not re.match(r"#\d+|INFO|WARNING", line)]
        print("\n".join(lines[-MOST_LINES:]), flush=True)
    return status == 0


def _forked(work: Callable[[], None], log: Path) -> int:
    """Run in a process of its own, whose output is in a file; its status."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        with log.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        try:
            work()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main(words: list[str]) -> int:
    """Every reader in turn, or one; 1 if one of them failed."""
    folder, amount, seed, *rest = words
    names = rest[:1] or list(READERS)
    places = {name: Path(folder).resolve() / name for name in names}
    option = f"-seed={int(seed)}"
    well = [run(READERS[name], places[name], Amount.of(amount), option, rest[1:]) for name in names]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
