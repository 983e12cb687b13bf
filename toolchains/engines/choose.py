"""Which engine a task uses: the one that was asked for, or Docker if it answers."""

from __future__ import annotations

from kernels.errors import EngineError, UsageError, did_you_mean
from toolchains.engines import Engine

ENGINES = ("auto", "docker", "local", "bubblewrap")


def require_engine(word: str) -> None:
    """UsageError for a word that is not one of ENGINES."""
    if word not in ENGINES:
        raise UsageError(f"unknown engine '{word}'{did_you_mean(word, ENGINES)}")


def choose_engine(word: str) -> tuple[Engine, str]:
    """The engine, and a line that says which it is and why; UsageError for other words."""
    require_engine(word)
    if word == "local":
        return _local("engine: local, as asked")
    if word == "bubblewrap":
        from toolchains.engines.bubblewrap import BubblewrapEngine  # noqa: PLC0415 - beside its alternatives

        return BubblewrapEngine(), "engine: bubblewrap, as asked"
    try:
        from toolchains.engines.docker_engine import DockerEngine  # noqa: PLC0415 - slow to import

        engine = DockerEngine()
    except EngineError as error:
        if word == "docker":
            raise
        return _local(f"engine: local ({str(error).split(';')[0]})")
    return engine, "engine: docker, which answers" if word == "auto" else "engine: docker, as asked"


def _local(line: str) -> tuple[Engine, str]:
    """The local engine, and a line that also says what it does not protect from, and what does."""
    from toolchains.engines.bubblewrap import is_here  # noqa: PLC0415 - beside their alternative
    from toolchains.engines.local import LocalEngine  # noqa: PLC0415

    offer = "; --engine bubblewrap takes them away" if is_here() else ""
    return LocalEngine(), f"{line}: its steps have all your rights{offer}"
