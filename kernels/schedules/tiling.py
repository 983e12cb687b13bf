"""The schedule of Winograd's algorithm for 3 x 3 windows, and the model that chooses it.

What is emitted from the schedule is in `kernels.schedules.winograd`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Annotated

import msgspec

from kernels.schedules import blocking
from kernels.schedules.blocking import Block, Contraction
from kernels.schedules.tiles import Window, pieces, spread
from kernels.winograd import TAPS, TRANSFORMS
from toolchains.target import CPU

APART = 16
"""Elements, one line of 64 bytes, between matrices whose places would else share sets of a cache."""

ARITHMETIC = {2: 4, 4: 13}
"""Instructions of a transform along one axis, by m: that of data, which takes more than that of results."""
ISSUED = 2
"""Instructions of a transform that begin in a cycle at most, for half of them wait for memory."""
BEYOND, BEHIND, MEMORY = 8, 4, 2
"""Bytes in a cycle that a core reads from its share of a third level, from memory behind that, and from
memory where there is none. Measured on an EPYC (Zen 3): 6 where 9 MB of weights are read, 3 where 38 MB."""
WORTH = 0.9
"""Less of the direct sum's time must be left, for the accuracy is less too."""


class Winograd(Contraction, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """F(m x m, 3 x 3): blocks of `lines` lines of tiles, `across` tiles of each.

    The rest is the schedule of the products [tiles of a block, channels] x [channels, panel].
    """

    m: Annotated[int, msgspec.Meta(ge=2, le=4, multiple_of=2)]
    lines: Block
    across: Block

    @property
    def side(self) -> int:
        """Elements along one side of a tile of data."""
        return self.m + TAPS - 1


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of the arena begin, and how far matrices are apart; in elements.

    First the transformed data, then the products, then what one pass of a transform leaves
    for the other.
    """

    data_apart: int
    products_apart: int
    products: int
    scratch: int
    end: int


def grid(window: Window, m: int) -> tuple[int, int]:
    """Lines of tiles, and tiles of a line; the last ones may be partial."""
    return -(-window.out[1] // m), -(-window.out[2] // m)


def places(window: Window, schedule: Winograd, lanes: int) -> Places:
    """The arena's parts for blocks of so many tiles."""
    tiles, points = schedule.lines * schedule.across, schedule.side**2
    data_apart = _whole_lines(tiles * window.channels) + APART
    products_apart = _whole_lines(tiles * schedule.nr) + APART
    products = points * data_apart
    scratch = products + points * products_apart
    span = schedule.across * schedule.m + TAPS - 1
    return Places(
        data_apart=data_apart,
        products_apart=products_apart,
        products=products,
        scratch=scratch,
        end=scratch + _whole_lines(schedule.side * span * lanes),
    )


def _whole_lines(elements: int) -> int:
    return -(-elements // APART) * APART


def choose(window: Window, columns: int, cpu: CPU) -> Winograd | None:
    """The cheapest schedule by the model; None where the direct sum is hardly dearer."""
    direct = blocking.cycles(window, columns, blocking.choose(window, columns, cpu), cpu)
    weights = 4 * window.terms * columns
    if weights > cpu.l2.bytes // 2:
        direct += _reading(weights, cpu)
    found = [each for m in TRANSFORMS for each in _candidates(window, columns, m, cpu)]
    costs = [_cost(window, columns, each, cpu) for each in found]
    best = min(costs, default=direct)
    return found[costs.index(best)] if best < WORTH * direct else None


def _candidates(window: Window, columns: int, m: int, cpu: CPU) -> Iterator[Winograd]:
    """Schedules by the largest block that stays in the second level: alone, and beside the weights."""
    height, width = grid(window, m)
    points, channels = (m + TAPS - 1) ** 2, window.channels
    panel = blocking.choose(product_window(height * width, channels), columns, cpu).nr
    blocks = [*((lines, width) for lines in _sizes(height)), *((1, part) for part in _sizes(width))]
    for weights in (channels * columns, 0):
        fitting = [
            b for b in blocks if 4 * points * (prod(b) * (channels + panel) + weights) <= cpu.l2.bytes
        ]
        if weights and not fitting:
            continue
        lines, across = max(fitting, key=prod, default=(1, 1))
        product = product_window(lines * across, channels)
        chosen = msgspec.structs.asdict(blocking.choose(product, columns, cpu))
        if cpu.prefetch and not weights:
            chosen["prefetch_panel"] = -(-chosen["nr"] // len(spread(lines * across, chosen["mr"])))
        yield Winograd(**chosen, m=m, lines=lines, across=across)


def _sizes(extent: int) -> list[int]:
    """The sizes of the larger parts of every way to cut an extent evenly."""
    return sorted({spread(extent, most)[0] for most in range(1, extent + 1)})


def _stays(window: Window, columns: int, schedule: Winograd, cpu: CPU) -> bool:
    """Whether the weights stay in the second level beside a block's data and products."""
    tiles, points = schedule.lines * schedule.across, schedule.side**2
    elements = tiles * (window.channels + schedule.nr) + window.channels * columns
    return 4 * points * elements <= cpu.l2.bytes


def _cost(window: Window, columns: int, schedule: Winograd, cpu: CPU) -> float:
    """Cycles of all products and transforms, and of reading weights from beyond the second level."""
    height, width = grid(window, schedule.m)
    points = schedule.side**2
    far = not _stays(window, columns, schedule, cpu)
    reading = _reading(4 * points * window.channels * columns, cpu) if far else 0.0
    total = 0.0
    for lines in spread(height, schedule.lines):
        for across in spread(width, schedule.across):
            product = product_window(lines * across, window.channels)
            total += points * blocking.cycles(product, columns, schedule, cpu) + reading
            total += lines * _transforms(window, columns, schedule, across, cpu) / min(cpu.issue, ISSUED)
    return window.batch * total


def _reading(weights: int, cpu: CPU) -> float:
    """Cycles in which so many bytes of weights come from beyond the second level."""
    if cpu.l3 is None:
        return weights / MEMORY
    near = min(weights, cpu.l3.bytes)
    return near / BEYOND + (weights - near) / BEHIND


def _transforms(window: Window, columns: int, schedule: Winograd, across: int, cpu: CPU) -> int:
    """Instructions of the transforms of a line of tiles: loads, arithmetic, stores and loops.

    Where a load or a store cannot add an index, another instruction does. Products are stored
    for each point, and their sums begin with a zero.
    """
    m, side = schedule.m, schedule.side
    span = across * m + TAPS - 1
    access, rest = 1 if cpu.indexed else 2, ARITHMETIC[m] + 2
    data = (span + side * across) * (2 * side * access + rest)
    results = across * ((side + m) * ((side + m) * access + rest) + m * m + 2 * side**2)
    return data * len(pieces(window.channels, cpu.lanes)) + results * len(pieces(columns, cpu.lanes))


def product_window(tiles: int, channels: int) -> Window:
    """One of the products: a row of a pixel for each tile, and one tap."""
    return Window(batch=1, size=(1, 1, tiles), channels=channels, out=(1, 1, tiles))
