"""Tuning on a board: this machine, through a real ssh server of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kernels import check
from kernels.errors import EngineError, MissingToolError, ResourceError, UsageError
from kernels.models import read_model
from kernels.plan import Kernel
from kernels.program import Program
from kernels.tuning import read_file
from tests.unit.test_process import alive
from toolchains import processor
from toolchains.bench import judges, tuning
from toolchains.board import Board
from toolchains.pipeline import Options
from toolchains.process import Finished
from toolchains.progress import Progress
from toolchains.target import find_target

OWN = find_target("x86_64")
PRODUCTS = """
name = "board_small"
source = "test"

[[kernel]]
name = "one"
op = "gemm"
m = 20
n = 30
k = 40

[[kernel]]
name = "two"
op = "gemm"
m = 21
n = 30
k = 40
"""


def children(process: int) -> list[int]:
    """All that a process has started, and what that has started in turn, the last first."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(
                stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, due = [], [process]
    while due:
        parent = due.pop()
        own = [each for each, its in parents.items() if its == parent]
        found += own
        due += own
    return found[::-1]


class Server:
    """An ssh server for the current user alone, on a port of its own of the loopback."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self._program = folder, program
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for name in ("host", "client", "other"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "client.pub", folder / "allowed")
        key = (folder / "host.pub").read_text(encoding="utf-8")
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}", encoding="utf-8")
        self.temporary, self.programs = folder / "tmp", folder / "programs"
        self.temporary.mkdir()
        self.programs.mkdir()
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/allowed\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"SetEnv TMPDIR={self.temporary} PATH={self.programs}:{os.defpath}\n",
            encoding="utf-8",
        )
        self.configure()
        self.start()

    def configure(self, **changes: str) -> None:
        """Write the client's configuration."""
        words = {"IdentityFile": f"{self.folder}/client", "UserKnownHostsFile": f"{self.folder}/known"}
        words |= {
            "IdentitiesOnly": "yes",
            "GlobalKnownHostsFile": "none",
            "IdentityAgent": "none",
            **changes,
        }
        text = "".join(f"{key} {value}\n" for key, value in words.items())
        (self.folder / "config").write_text(text, encoding="utf-8")

    @property
    def host(self) -> str:
        return f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1:{self.port}"

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # what Debian's script does before it starts
        log = self.folder / "log"
        with log.open("ab") as stream:
            self.child = subprocess.Popen(
                [self._program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.child.poll() is None, log.read_text(encoding="utf-8")
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(log.read_text(encoding="utf-8"))

    def stop(self) -> None:
        """As when the board loses its power: connections end first, and nobody tells how work ended."""
        for process in (self.child.pid, *reversed(children(self.child.pid))):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.child.wait()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, and an `ssh` on the path that reads the test's configuration."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    client = shutil.which("ssh")
    if program is None or client is None:
        pytest.skip("there is no ssh server here; `invoke setup` brings it where nothing would start it")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {client} -F {folder}/config "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    found = Server(folder, program)
    yield found
    found.stop()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "small.toml").write_text(PRODUCTS, encoding="utf-8")
    return read_model(tmp_path / "small.toml")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of a few candidates."""
    all_of_them = tuning.neighbours
    monkeypatch.setattr(tuning, "neighbours", lambda *words: all_of_them(*words)[:4])


def tune(
    program: Program, options: Options, tmp_path: Path, host: str, heard: Callable[[tuning.Found], None]
) -> Path:
    own = msgspec.structs.replace(options, build=tmp_path / "build")
    quiet = Progress(quiet=True)
    return tuning.tune(program, OWN, own, quiet, tmp_path / "records", heard, host=host)


@pytest.mark.usefixtures("few")
def test_a_search_is_timed_on_the_board(
    program: Program, options: Options, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LEAST_GAIN", 0.0)  # so that each kernel leaves a record
    found: list[tuning.Found] = []
    path = tune(program, options, tmp_path, server.host, found.append)
    assert [(each.kernel, each.tried) for each in found] == [("one", 4), ("two", 4)]
    records = read_file(path, OWN.name).record
    assert [(each.by, each.cpu) for each in records] == [("time", processor.here())] * 2
    assert all(each.gain > 0 for each in records)
    assert list(server.temporary.iterdir()) == [], "the board's folder is gone"
    again: list[tuning.Found] = []
    tune(program, options, tmp_path, server.host, again.append)
    assert again == []


@pytest.mark.usefixtures("few")
def test_a_wrong_schedule_never_wins(
    program: Program, options: Options, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that computes from other inputs than it ought to stands for it."""
    true_bytes, true_costs = check.input_bytes, judges.OnBoard.costs
    costs: list[dict[str, float]] = []

    def spoilt(kernel: Kernel, *words: Any) -> bytes:
        data = true_bytes(kernel, *words)
        return bytes(len(data)) if kernel.name == "one_1" else data

    def seen(*words: Any) -> dict[str, float]:
        costs.append(true_costs(*words))
        return costs[-1]

    monkeypatch.setattr(check, "input_bytes", spoilt)
    monkeypatch.setattr(judges.OnBoard, "costs", seen)
    tune(program, options, tmp_path, server.host, lambda _: None)
    assert set(costs[0]) == {"one", "one_2", "one_3", "one_4"}
    assert set(costs[2]) == {"two", "two_1", "two_2", "two_3", "two_4"}


@pytest.mark.usefixtures("few")
def test_after_a_lost_board_the_search_goes_on_where_it_stood(
    program: Program, options: Options, tmp_path: Path, server: Server
) -> None:
    found: list[str] = []

    def lose(each: tuning.Found) -> None:
        found.append(each.kernel)
        server.stop()

    with pytest.raises(EngineError, match=r"connection was lost .* goes on where it stood"):
        tune(program, options, tmp_path, server.host, lose)
    assert found == ["one"]
    server.start()
    tune(program, options, tmp_path, server.host, lambda each: found.append(each.kernel))
    assert found == ["one", "two"]


def test_a_board_that_is_lost_while_it_works_is_noticed(server: Server) -> None:
    with Board(server.host) as board:
        threading.Timer(1.0, server.stop).start()
        with pytest.raises(EngineError, match="connection was lost"):
            board.run(["sleep", "60"], timeout=50)


def test_a_folder_holds_what_it_shall_and_vanishes(server: Server) -> None:
    with Board(server.host) as board:
        (place,) = server.temporary.iterdir()
        board.hold({"a": b"1", "b file": b"2"})
        (place / "a").write_bytes(b"as it was")
        board.hold({"a": b"1", "c": b"3"})
        assert {path.name for path in place.iterdir()} == {"a", "c"}
        assert (place / "a").read_bytes() == b"as it was", "what is there is not copied again"
        assert board.take(["c"]) == {"c": b"3"}
        assert not (place / "c").exists()
        ended = board.run(["sh", "-c", "echo one; echo two >&2; kill -ILL $$"], timeout=30)
        assert (ended.status, ended.output.splitlines()[:2]) == (128 + signal.SIGILL, ["one", "two"])
        with pytest.raises(EngineError, match="copying from it failed"):
            board.take(["none"])
        with pytest.raises(EngineError, match="no end after 1 s"):
            board.run(["sleep", "60"], timeout=1)
    assert not place.exists()


def test_a_board_tidies_up_after_a_connection_that_was_cut(server: Server) -> None:
    with Board(server.host) as board:
        board.hold({"a": b"1"})
        sessions = [each for each in children(server.child.pid) if alive(each)]
        names = {each: Path(f"/proc/{each}/comm").read_text(encoding="utf-8").strip() for each in sessions}
        for process, name in names.items():
            if name.startswith("sshd"):  # the server's part of the session, not the shell
                os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while list(server.temporary.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(server.temporary.iterdir()) == []
        with pytest.raises(EngineError, match="connection was lost"):
            board.run(["true"], timeout=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IdentityFile": "other"}, "Permission denied .*ssh-copy-id"),
        ({"UserKnownHostsFile": "none"}, "Host key verification failed.*connect once by hand"),
    ],
)
def test_a_refusal_has_a_hint(server: Server, changes: dict[str, str], message: str) -> None:
    server.configure(**{key: f"{server.folder}/{value}" for key, value in changes.items()})
    with pytest.raises(EngineError, match=message), Board(server.host):
        pass


def test_a_board_that_does_not_answer(server: Server) -> None:
    server.stop()
    with pytest.raises(EngineError, match=r"Connection refused; does its ssh server"), Board(server.host):
        pass
    with pytest.raises(EngineError, match=r"Could not resolve .*; look at its spelling"):
        Board("nobody@no-such-board.invalid").__enter__()
    server.start()


def test_a_board_without_room(server: Server) -> None:
    server.temporary.rmdir()
    with pytest.raises(EngineError, match=r"no folder could be made there: .*TMPDIR"), Board(server.host):
        pass


def test_a_board_whose_disk_is_full(server: Server) -> None:
    """Its `tar` says what tar says then."""
    tar = server.programs / "tar"
    tar.write_text(
        "#!/bin/sh\necho 'tar: a: Cannot write: No space left on device'; exit 2\n", encoding="utf-8"
    )
    tar.chmod(0o755)
    with Board(server.host) as board, pytest.raises(ResourceError, match=r"no space is left for .*TMPDIR"):
        board.hold({"a": b"1"})


@pytest.mark.parametrize("runner", [b"\x7fELF, of no machine", b"#!/no/such/program\n"])
def test_a_board_of_another_architecture(server: Server, runner: bytes) -> None:
    with Board(server.host) as board:
        board.hold({"runner": runner})
        judge = judges.OnBoard(OWN, board)
        with pytest.raises(EngineError, match="runs no program for x86_64: "):
            judge._try()


def test_a_processor_that_lacks_an_instruction(server: Server) -> None:
    with Board(server.host) as board:
        board.hold({"runner": b"#!/bin/sh\nkill -ILL $$\n"})
        with pytest.raises(EngineError, match="lacks an instruction of x86_64"):
            judges.OnBoard(OWN, board)._try()


def test_vectors_that_are_too_short(server: Server) -> None:
    with Board(server.host) as board:
        board.hold({"runner": b"#!/bin/sh\necho 80\n"})
        with pytest.raises(EngineError, match="shorter than the 256 bits"):
            judges.OnBoard(find_target("riscv64-rvv256"), board)._try()


@pytest.mark.parametrize("words", ["", "-oProxyCommand=x", "a b", "user@board:x", "user@", "board:22:23"])
def test_a_host_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        Board(words)


def test_no_ssh_is_said_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="openssh-client"), Board("user@board"):
        pass


def test_what_a_runner_says_is_read_from_its_end() -> None:
    said = "Welcome!\na 0 0 2 a c\nb 4 0 1\n"
    one, two = judges._timings(said, ("a", "b"), "board")
    assert (one.seconds, two.fault) == (5.5e-9, 4)
    with pytest.raises(EngineError, match="said nothing of b"):
        judges._timings("Killed\na 0 0 2 a c\n", ("a", "b"), "board")
    with pytest.raises(EngineError, match="clock does not see"):
        judges._timings("a 0 0 2 0 0 1\n", ("a",), "board")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (139, "ended by SIGSEGV"),
        (137, "out of memory"),
        (3, "is its disk full"),
        (9, "status 9: what it said"),
    ],
)
def test_a_runner_that_fails_has_its_words(server: Server, status: int, message: str) -> None:
    with Board(server.host) as board:
        error = judges.OnBoard(OWN, board)._failed(Finished(status=status, output="what it said"))
        assert message in str(error)
