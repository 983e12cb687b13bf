"""Who reads a tensor, and who alone: what passes ask that join operators."""

from __future__ import annotations

from kernels.program import Network, Operator, Role


class Readers:
    """The readers and the maker of each tensor of a network."""

    def __init__(self, network: Network) -> None:
        """Walk over the operators once."""
        self._program = network.program
        self._readers: dict[str, list[Operator]] = {}
        self._makers: dict[str, Operator] = {}
        for operator in network.program.operators:
            for name in operator.inputs:
                self._readers.setdefault(name, []).append(operator)
            for name in operator.outputs:
                self._makers[name] = operator

    def alone(self, name: str) -> Operator | None:
        """The one operator that reads a tensor, once, if nobody else needs it."""
        readers = self._readers.get(name, ())
        if len(readers) != 1 or self._program.tensor(name).role is not Role.INTERNAL:
            return None
        return readers[0]

    def maker(self, name: str) -> Operator | None:
        """The operator that makes a tensor; None for inputs and constants."""
        return self._makers.get(name)
