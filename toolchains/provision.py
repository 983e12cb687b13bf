"""`invoke setup` and `invoke doctor`: what pip cannot bring, and what is here of it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from kernels.errors import EngineError
from toolchains.cache import versions
from toolchains.emulators import cache_folder, find_emulator
from toolchains.engines.bubblewrap import PROGRAM
from toolchains.limits import limit
from toolchains.machine import Finding, limits
from toolchains.process import run
from toolchains.target import Target, all_targets

Say = Callable[[str], None]
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
"""Bits of linux/include/uapi/linux/capability.h; a Docker engine cannot run without either."""
WANTED = {"minisign": ("minisign", "a signature"), PROGRAM: ("bubblewrap", "--engine bubblewrap")}
"""Programs that some tasks can do without: Debian's package of each, and what needs it."""
IMPORTED, UNUSED = ("tvm", "tvm_ffi", "numpy", "msgspec", "elftools", "capstone"), "/(tests?|relax|f2py)/"
"""The packages of pyproject.toml's group `steps`, and folders of theirs that no step loads."""


# -- doctor --------------------------------------------------------------------------


def examine() -> list[Finding]:
    """What is on this machine, without changing anything."""
    tools = versions()
    found = [
        Finding(name="python", state="here", detail=platform.python_version()),
        Finding(name="tvm", state="here", detail=tools["apache-tvm"]),
        Finding(name="zig", state="here", detail=f"{tools['ziglang']}, the local engine's compiler"),
    ]
    found += [_emulator(target) for target in all_targets().values()]
    for program, (name, what) in {"ssh": ("ssh", "`invoke tune --host`"), **WANTED}.items():
        place = shutil.which(program)
        found.append(
            Finding(
                name=name,
                state="here" if place else "absent",
                detail=place or f"only {what} needs it",
                mend="" if place else "invoke setup",
            )
        )
    version, reason = docker_version()
    if version:
        found.append(Finding(name="docker", state="here", detail=f"engine {version} answers"))
    else:
        mend = "invoke setup" if not _why_no_docker(reason) else ""
        detail = _why_no_docker(reason) or reason
        found.append(
            Finding(name="docker", state="absent", detail=f"{detail}: the local engine is used", mend=mend)
        )
    found += limits()
    return found


def _emulator(target: Target) -> Finding:
    name = f"{target.qemu.binary} ({target.name})"
    emulator = find_emulator(target.qemu)
    if emulator is None:
        return Finding(name=name, state="missing", detail="not found", mend="invoke setup")
    if emulator.version[:2] < target.qemu.minimum:
        wanted = ".".join(map(str, target.qemu.minimum))
        return Finding(
            name=name,
            state="missing",
            detail=f"{emulator.name} is older than {wanted}",
            mend=f"install a newer {target.qemu.binary}, or use --engine docker",
        )
    counts = "counts instructions" if emulator.loads_plugins else "loads no plugins, so it cannot count"
    return Finding(name=name, state="here", detail=f"{emulator.name}, {counts}: {emulator.path}")


def docker_version() -> tuple[str, str]:
    """The version of the engine that answers, or why none does."""
    from toolchains.engines.image import connect  # noqa: PLC0415 - slow to import

    try:
        return str(connect(5).version()["Version"]), ""
    except EngineError as error:
        return "", str(error)


# -- setup ---------------------------------------------------------------------------


def provide(say: Say) -> None:
    """Bring QEMU, ssh, what is WANTED, and where it can run a Docker engine; say what was left out."""
    _compile_packages(say)
    provide_emulators(say)
    _provide_ssh(say)
    _provide_wanted(say)
    if provide_daemon(say):
        _provide_bootstrap(say)


def _compile_packages(say: Say) -> None:
    """Compile what steps import where nobody has, if this user may: half of a step's start is that else."""
    origins = [found.origin for found in map(find_spec, IMPORTED) if found and found.origin]
    if not all(Path(cache_from_source(origin)).exists() for origin in origins):
        say("Python: compiling packages, so that steps start in half the time")
        folders = [str(Path(origin).parent) for origin in origins]
        compiling = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-x", UNUSED]
        run([*compiling, *folders], timeout=limit("install"))


def provide_emulators(say: Say, packages: Sequence[Path] = ()) -> None:
    """Debian's qemu-user: of its two packages the one that may load plugins, which count.

    Where `packages` are given, these files are unpacked, and no network is needed.
    """
    qemus = [target.qemu for target in all_targets().values()]
    missing = [qemu for qemu in qemus if find_emulator(qemu) is None]
    packaged = all(shutil.which(qemu.binary) for qemu in qemus)
    may_install = not packages and _rights() is not None and shutil.which("apt-get") is not None
    if not missing and (packaged or not may_install):
        say("QEMU: here already, nothing to do")
        return
    if shutil.which("dpkg-deb" if packages else "apt-get") is None:
        say("QEMU: left out: this machine has no apt-get; install QEMU's user mode from its packages")
        return
    if packages:
        say(f"QEMU: unpacking it into {cache_folder() / 'qemu'}")
        reason = _unpack(packages)
    elif may_install:
        say("QEMU: installing qemu-user")
        reason = _install(["qemu-user"])
    else:
        say(f"QEMU: no rights to install packages: unpacking it into {cache_folder() / 'qemu'}")
        reason = _unpack_emulators()
    missing = [qemu for qemu in qemus if find_emulator(qemu) is None]
    if missing:
        names = ", ".join(sorted({qemu.binary for qemu in missing}))
        say(
            f"QEMU: left out: {names} could not be had ({reason or 'not in the package'}); "
            "checks on these targets will be skipped"
        )
    else:
        say("QEMU: installed")


def _unpack_emulators() -> str:
    """Unpack the static emulators for an ordinary user; why not, if not."""
    with tempfile.TemporaryDirectory(prefix="kernfit-qemu-") as folder:
        return fetch_emulators(Path(folder)) or _unpack(sorted(Path(folder).glob("*.deb")))


def fetch_emulators(folder: Path) -> str:
    """Download Debian's packages of static emulators; why not, if not.

    apt keeps all its state in a folder of ours, so that it needs no rights.
    """
    with tempfile.TemporaryDirectory(prefix="kernfit-apt-") as state:
        for part in ("lists/partial", "cache/archives/partial"):
            (Path(state) / part).mkdir(parents=True)
        options = ["-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
        updated = run(["apt-get", *options, "-q", "update"], timeout=limit("install"), cwd=folder)
        if updated.status != 0:
            return _last(updated.output)
        for package in ("qemu-user-static", "qemu-user"):
            command = ["apt-get", *options, "-q", "download", package]
            fetched = run(command, timeout=limit("install"), cwd=folder)
            for archive in folder.glob(f"{package}_*.deb"):
                if _programs_in(archive):
                    return ""
                archive.unlink()
            if fetched.status != 0:
                return _last(fetched.output)
    return "the packages hold no emulator"


def _programs_in(archive: Path) -> bool:
    """Whether a package has emulators; Debian 13's qemu-user-static only asks for another."""
    names: list[str] = []
    run(["dpkg-deb", "--contents", str(archive)], timeout=limit("install"), on_line=names.append)
    return any(line.startswith("-") and "/usr/bin/qemu-" in line for line in names)


def _unpack(archives: Sequence[Path]) -> str:
    """Unpack packages into our cache; why not, if not."""
    for archive in archives:
        command = ["dpkg-deb", "-x", str(archive), str(cache_folder() / "qemu")]
        (cache_folder() / "qemu").mkdir(parents=True, exist_ok=True)
        unpacked = run(command, timeout=limit("install"))
        if unpacked.status != 0:
            return _last(unpacked.output)
    return ""


def _provide_ssh(say: Say) -> None:
    """A client, to tune on a board; and a server, which our tests of that talk to.

    Debian starts a server as soon as it is installed, which opens the machine to its network.
    So it is brought only where that does not happen: nothing starts services in a container.
    """
    packages = {"ssh": "openssh-client", "sshd": "openssh-server"}
    missing = [program for program in packages if not _finds(program)]
    if not missing:
        say("ssh: here already, nothing to do")
        return
    if "sshd" in missing and _starts_services():
        missing.remove("sshd")
        say("ssh: the server is left out, for it would be started: tests that need it will be skipped")
    if not missing:
        return
    if _rights() is None or shutil.which("apt-get") is None:
        say(f"ssh: {', '.join(missing)} left out: no package can be installed here")
        return
    names = [packages[program] for program in missing]
    say(f"ssh: installing {', '.join(names)}")
    failure = _install(names)
    say(f"ssh: left out: {failure}" if failure else "ssh: installed")


def _provide_wanted(say: Say) -> None:
    """Programs that some tasks can do without."""
    missing = [program for program in WANTED if not _finds(program)]
    failure = ""
    if missing and (_rights() is None or shutil.which("apt-get") is None):
        failure = "no package can be installed here"
    elif missing:
        failure = _install([WANTED[program][0] for program in missing])
    for program, (package, what) in WANTED.items():
        done = f"left out: {failure}; only {what} needs it" if failure else "installed"
        say(f"{package}: {done if program in missing else 'here already, nothing to do'}")


def _finds(program: str) -> bool:
    """Whether a program is here; an ordinary user's path lacks those of the administrator."""
    folders = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")
    return shutil.which(program, path=os.pathsep.join(folders)) is not None


def _starts_services() -> bool:
    """Whether a package's service is started when it is installed."""
    return Path("/run/systemd/system").is_dir() or not Path("/usr/sbin/policy-rc.d").exists()


def provide_daemon(say: Say) -> bool:
    """A Docker engine that answers, if one can be had here; whether it does."""
    version, reason = docker_version()
    if version:
        say(f"Docker: engine {version} answers, nothing to do")
    else:
        why_not = _why_no_docker(reason)
        if why_not:
            say(f"Docker: left out: {why_not}; the local engine will be used")
            return False
        if shutil.which("dockerd") is None:
            say("Docker: installing the engine")
            failure = _install(["docker.io", "iptables"])
            if failure:
                say(f"Docker: left out: {failure}; the local engine will be used")
                return False
        say("Docker: starting the engine")
        failure = _start_daemon()
        if failure:
            say(f"Docker: left out: {failure}; the local engine will be used")
            return False
        say(f"Docker: engine {docker_version()[0]} answers")
    return True


def _provide_bootstrap(say: Say) -> None:
    if shutil.which("mmdebstrap") is None and _rights() is not None and shutil.which("apt-get"):
        say("Docker: installing mmdebstrap, which makes a base image where no registry answers")
        failure = _install(["mmdebstrap"])
        if failure:
            say(f"Docker: mmdebstrap left out: {failure}")


def _why_no_docker(reason: str) -> str:
    """Why no engine can be installed and started here; empty if it can."""
    if "may not open" in reason:
        return reason
    if _rights() is None:
        return f"{reason}, and this user has no rights to install one"
    if os.geteuid() == 0 and not _capable():
        return f"{reason}, and this container lacks the capabilities to run one"
    if shutil.which("apt-get") is None:
        return f"{reason}, and this machine has no apt-get"
    return ""


def _rights() -> list[str] | None:
    """What to put before a command that needs root; None if there is no way."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and run(["sudo", "-n", "true"], timeout=limit("probe")).status == 0:
        return ["sudo", "-n"]
    return None


def _capable() -> bool:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return bool(bits >> CAP_NET_ADMIN & 1 and bits >> CAP_SYS_ADMIN & 1)
    return False


def _install(packages: Sequence[str]) -> str:
    """Install Debian packages; why not, if not."""
    rights = _rights() or []
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    output = ""
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        finished = run([*rights, "apt-get", "-q", *words], timeout=limit("install"), env=env)
        if finished.status != 0:
            output = finished.output
    return _last(output) if output else ""


def _start_daemon() -> str:
    """Start the engine and wait for its answer; why not, if not."""
    rights = _rights() or []
    log = cache_folder() / "dockerd.log"
    if Path("/run/systemd/system").is_dir():
        started = run([*rights, "systemctl", "start", "docker"], timeout=limit("daemon"))
        if started.status != 0:
            return _last(started.output)
    elif not _running("dockerd"):
        for stale in ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"):
            run([*rights, "rm", "-f", stale], timeout=limit("probe"))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            subprocess.Popen(  # noqa: S603 - the daemon outlives us on purpose
                [*rights, "dockerd", *_mtu()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    seconds = limit("daemon")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        version, reason = docker_version()
        if version:
            return ""
        if "may not open" in reason:
            return "it runs now, but this user may not open its socket; join the group docker"
        time.sleep(0.5)
    return f"the engine did not answer within {seconds:.0f} s; its log is {log}"


def _running(name: str) -> bool:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text(encoding="utf-8").strip() == name:
                return True
        except OSError:
            continue
    return False


def _mtu() -> list[str]:
    """The default route's packet size, which Docker's bridge must not exceed."""
    for line in Path("/proc/net/route").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            size = Path(f"/sys/class/net/{fields[0]}/mtu").read_text(encoding="utf-8").strip()
            return ["--mtu", size]
    return []


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else f"no reason given, by {sys.platform}"
