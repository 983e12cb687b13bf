"""A board that is reached over ssh, and a folder on it.

It needs nothing but an ssh server and the shell, `tar` and `mktemp` of any Linux. Here the
user's own ssh is run with the user's own configuration: names, keys and jumps are its matter.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from types import TracebackType
from typing import BinaryIO, Self

from kernels.errors import EngineError, MissingToolError, ResourceError, UsageError
from toolchains.limits import limit
from toolchains.process import Companion, Finished, run

CONNECT_SECONDS = 10
ALIVE_SECONDS, ALIVE_COUNT = 5, 3
"""A connection counts as lost when so many questions, so far apart, had no answer."""
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_SECONDS,
    "ServerAliveInterval": ALIVE_SECONDS,
    "ServerAliveCountMax": ALIVE_COUNT,
    "ClearAllForwardings": "yes",
    "LogLevel": "ERROR",
}
SSH_FAILED = 255
GONE = 97
"""Our scripts' status where their folder is gone, with the connection that kept it."""
READY = "kernfit: ready"
FOLDER = "kernfit: folder "
KEEP = "; ".join(
    (
        'folder=$(mktemp -d "${TMPDIR:-/tmp}/kernfit.XXXXXX") || exit 1',
        """trap 'rm -rf "$folder"' EXIT""",
        "trap 'exit 1' HUP INT TERM",
        f'echo "{FOLDER}$folder"',
        "cat /proc/cpuinfo",
        f'echo "{READY}"',
        "cat > /dev/null",
    )
)
"""Makes the folder, and removes it when the connection ends, whatever the reason."""

HOST = re.compile(r"(?P<name>(?:\w[\w.-]*@)?(?:\[[\w:.%]+\]|\w[\w.-]*))(?::(?P<port>\d{1,5}))?", re.ASCII)
HINTS = {
    "Could not resolve": "look at its spelling, or give it an entry in ssh's configuration",
    "Connection refused": "does its ssh server listen on that port? say --host user@board:port",
    "timed out": "is it switched on, and in this network?",
    "No route to host": "is it switched on, and in this network?",
    "Network is unreachable": "is this machine connected to its network?",
    "Permission denied": "let a key of yours in (ssh-copy-id), and see that the agent holds it",
    "Host key verification failed": "connect once by hand, and compare its key; or it has changed",
    "host key is known": "connect once by hand, and compare its key",
}
"""What to do, by words of ssh's."""


class Board:
    """The board, while it is entered, and what its folder holds."""

    def __init__(self, words: str) -> None:
        """`words` are user@board:port, of which the board or a name of ssh's must be there."""
        found = HOST.fullmatch(words)
        if found is None:
            raise UsageError(f"--host {words}: say user@board or user@board:port")
        self.host = words
        port = ["-p", found["port"]] if found["port"] else []
        options = [word for key, value in OPTIONS.items() for word in ("-o", f"{key}={value}")]
        name = re.sub(r"[][]", "", found["name"])
        self._ssh = ["ssh", "-T", "-a", "-x", *options, *port, "--", name]
        self._held: dict[str, str] = {}
        self._folder = self.cpuinfo = ""

    def __enter__(self) -> Self:
        """Connect, and make the folder; EngineError or MissingToolError if that fails."""
        try:
            self._keeper = Companion(self._command(KEEP))
        except FileNotFoundError as error:
            raise MissingToolError(
                "ssh is missing; Debian's package is openssh-client, and `invoke setup` brings it"
            ) from error
        try:
            told = self._keeper.read_until(READY, 3.0 * CONNECT_SECONDS)
        except BaseException:
            self._keeper.close(0)
            raise
        if told.status != 0:
            self._keeper.close(0)
            raise refused(self.host, told)
        _, _, told_folder = told.output.rpartition(FOLDER)
        self._folder, _, self.cpuinfo = told_folder.removesuffix(f"{READY}\n").partition("\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect; the board itself then removes the folder."""
        self._keeper.close(CONNECT_SECONDS)

    def hold(self, files: Mapping[str, bytes]) -> None:
        """Let the folder hold these files and no others; those that it holds are not copied."""
        wanted = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        stale = [name for name, known in self._held.items() if wanted.get(name) != known]
        due = [name for name in files if name not in self._held or name in stale]
        self._held = wanted
        if not due:
            return
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                for name in due:
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(files[name]), 0o755
                    archive.addfile(entry, BytesIO(files[name]))
            packed.seek(0)
            self._step(f"rm -f {shlex.join(['--', *stale])} && tar xf -", "copying to it", stdin=packed)

    def take(self, names: Sequence[str]) -> dict[str, bytes]:
        """Files of the folder, which are then removed from it."""
        words = shlex.join(names)
        with tempfile.TemporaryFile() as packed:
            self._step(f"tar cf - {words} && rm -f {words}", "copying from it", stdout=packed)
            packed.seek(0)
            try:
                with tarfile.open(fileobj=packed, mode="r:") as archive:
                    members = {member.name: archive.extractfile(member) for member in archive}
                    return {name: stream.read() for name, stream in members.items() if stream}
            except tarfile.TarError as error:
                raise EngineError(f"{self.host}: what `tar` gave there is no archive: {error}") from error

    def run(self, words: Sequence[str], timeout: float) -> Finished:
        """Run a command in the folder. A status over 128 is a signal's number and 128."""
        return self._run(shlex.join(words), timeout)

    def _step(
        self, script: str, what: str, *, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None
    ) -> None:
        ended = self._run(script, limit("copy"), stdin=stdin, stdout=stdout)
        if "No space left" in ended.output or "Disk quota exceeded" in ended.output:
            raise ResourceError(f"{self.host}: no space is left for {self._folder}; set TMPDIR there")
        if ended.status != 0:
            raise EngineError(f"{self.host}: {what} failed: {_last(ended)}")

    def _run(
        self,
        script: str,
        timeout: float,
        *,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
    ) -> Finished:
        """Run a script in the folder; EngineError if the board does not answer any more."""
        # Without the exit at its end a shell gives its own process to the last command, and
        # of a command that ends by a signal ssh tells no status.
        script = f"cd {shlex.quote(self._folder)} 2> /dev/null || exit {GONE}; {script}; exit $?"
        ended = run(self._command(script), timeout=timeout, stdin=stdin, stdout=stdout)
        if ended.timed_out:
            raise EngineError(f"{self.host}: no end after {timeout:.0f} s")
        if ended.status in (SSH_FAILED, GONE):
            raise EngineError(
                f"{self.host}: the connection was lost ({_last(ended)}); "
                "once it is back, the same command goes on where it stood"
            )
        return ended

    def _command(self, script: str) -> list[str]:
        """Words for ssh; the login shell may be any, so it only starts a plain one, on one line."""
        return [*self._ssh, f"exec sh -c {shlex.quote(script)}"]


def refused(host: str, told: Finished) -> EngineError:
    """Why there is no connection, and what to do about it."""
    if told.timed_out:
        return EngineError(f"{host}: it answers, but its shell says nothing for {3 * CONNECT_SECONDS} s")
    if told.status != SSH_FAILED:
        where = "; TMPDIR there says where" if "mktemp" in told.output else ""
        return EngineError(f"{host}: no folder could be made there: {_last(told)}{where}")
    hint = next((hint for words, hint in HINTS.items() if words in told.output), "")
    return EngineError(f"{host}: {_last(told)}{f'; {hint}' if hint else ''}")


def _last(ended: Finished) -> str:
    """The last line of what was said."""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    return lines[-1] if lines else f"status {ended.status}, without a word"
