"""Where tensors lie in the arena, from their lifetimes alone.

Steps are the calls of a network, numbered from 0 on. A block holds its bytes from the step
that fills it to the last step that reads it, both included. Blocks whose lives overlap lie
apart; others may share memory. The best arrangement is NP-hard to find; the greedy one by
size, which puts the largest block first and each where the gap is the tightest, comes within
a few percent of the lower bound (Pisarchyk and Lee, "Efficient memory management for deep
neural net inference", 2020, section 5). Of a few orders, the best is taken.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice
from random import Random

import msgspec

from kernels.plan import ARENA_ALIGNMENT

ENDLESS = 1 << 62


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that is live from step `first` to step `last`, both included."""

    name: str
    bytes: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Bytes that it takes, up to the next block's alignment."""
        return aligned(self.bytes)


class Arrangement(msgspec.Struct, frozen=True, kw_only=True):
    """The offset of each block by name, and the size of the whole, in bytes."""

    offsets: dict[str, int]
    bytes: int


ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda block: (-block.size, block.first, block.last),
    lambda block: (-block.size * (block.last - block.first + 1), block.first),
    lambda block: (block.first - block.last, -block.size, block.first),
    lambda block: (block.first, -block.size),
)
"""By size, by size and length of life, by length of life, by time."""
ATTEMPTS = 300
"""More arrangements that are tried where none of the orders gives the smallest; of many blocks fewer."""
BLOCKS_IN_ALL = 1 << 17
"""Blocks that these attempts place in all: about two seconds."""
HIGH = 0.3
"""Share of the blocks that then lie at the end of their gap."""
MOST_BLOCKS = 1 << 12
"""Above so many blocks the first order is enough: graphs of that size take long."""
MOST_MEETINGS, MEETINGS_IN_ALL = 1 << 26, 1 << 28
"""Pairs of blocks that are live at a step, of all steps: of one order, and of all attempts. Above
the first, blocks are placed in the order of time: a second or two for either."""
MOST_GAPS = 1 << 10
"""That a block is tried in there."""


def aligned(size: int, alignment: int = ARENA_ALIGNMENT) -> int:
    """The size rounded up to a multiple of the alignment."""
    return -(-size // alignment) * alignment


def lower_bound(blocks: Iterable[Block]) -> int:
    """The largest sum of the blocks that are live at one step: no arena can be smaller."""
    return max((live for _, live in _sweep(blocks, lambda block: block.size)), default=0)


def _meetings(blocks: Iterable[Block]) -> int:
    """How often two blocks, or one with itself, are live at the same step: what placing them takes."""
    return sum(steps * live**2 for steps, live in _sweep(blocks, lambda _: 1))


def _sweep(blocks: Iterable[Block], weight: Callable[[Block], int]) -> Iterator[tuple[int, int]]:
    """For each run of steps at which the same blocks are live: how many steps, and the blocks' weight."""
    changes: dict[int, int] = {}
    for block in blocks:
        changes[block.first] = changes.get(block.first, 0) + weight(block)
        changes[block.last + 1] = changes.get(block.last + 1, 0) - weight(block)
    live = before = 0
    for step in sorted(changes):
        yield step - before, live
        live, before = live + changes[step], step


def arrange(blocks: Sequence[Block]) -> Arrangement:
    """The smallest arrangement that was found; the same in every run.

    Where the orders give none that is as small as the lower bound, they are tried again
    with sizes that are off by up to a quarter, and blocks at either end of their gap.
    """
    bound, meetings = lower_bound(blocks), _meetings(blocks)
    if meetings > MOST_MEETINGS:
        return in_time(blocks)
    best = _greedy(sorted(blocks, key=ORDERS[0]))
    if len(blocks) > MOST_BLOCKS:
        return best
    for key in ORDERS[1:]:
        found = _greedy(sorted(blocks, key=key))
        best = min(best, found, key=lambda each: each.bytes)
    generator = Random(0)  # noqa: S311 - any numbers do, as long as they are the same ones
    attempts = BLOCKS_IN_ALL // max(1, len(blocks)), MEETINGS_IN_ALL // max(1, meetings)
    for _ in range(min(ATTEMPTS, *attempts)):
        if best.bytes <= bound:
            break
        weights = {block.name: block.size * generator.uniform(0.75, 1.0) for block in blocks}
        high = {block.name for block in blocks if generator.random() < HIGH}
        order = sorted(blocks, key=lambda block: -weights[block.name])
        found = _greedy(order, high, bound)
        best = min(best, found, key=lambda each: each.bytes)
    return best


def _greedy(blocks: Sequence[Block], high: Collection[str] = (), limit: int = 0) -> Arrangement:
    """Each block in turn where it fits the tightest among those that live at the same time.

    The blocks in `high` lie at the end of their gap, and `limit` is where the last one ends.
    """
    live: dict[int, list[int]] = {}
    offsets: list[int] = []
    total = 0
    for number, block in enumerate(blocks):
        steps = range(block.first, block.last + 1)
        rivals = {rival for step in steps for rival in live.get(step, ())}
        taken = sorted((offsets[rival], offsets[rival] + blocks[rival].size) for rival in rivals)
        start, end = _tightest(taken, block.size, limit)
        offset = end - block.size if block.name in high else start
        offsets.append(offset)
        total = max(total, offset + block.size)
        for step in steps:
            live.setdefault(step, []).append(number)
    return Arrangement(
        offsets={block.name: offset for block, offset in zip(blocks, offsets, strict=True)}, bytes=total
    )


def in_time(blocks: Sequence[Block]) -> Arrangement:
    """Each block when its life begins, in the first gap that is large enough."""
    offsets: dict[str, int] = {}
    gaps: list[tuple[int, int]] = [(0, ENDLESS)]
    ends: list[tuple[int, int, int]] = []
    for block in sorted(blocks, key=lambda block: (block.first, -block.size)):
        while ends and ends[0][0] < block.first:
            _, first, end = heappop(ends)
            _give_back(gaps, first, end)
        fitting = (at for at, (low, high) in enumerate(islice(gaps, MOST_GAPS)) if high - low >= block.size)
        at = next(fitting, len(gaps) - 1)
        first, end = gaps[at][0], gaps[at][0] + block.size
        offsets[block.name] = first
        gaps[at : at + 1] = [(end, gaps[at][1])] if end < gaps[at][1] else []
        heappush(ends, (block.last, first, end))
    sizes = {block.name: block.size for block in blocks}
    return Arrangement(
        offsets=offsets, bytes=max((offset + sizes[name] for name, offset in offsets.items()), default=0)
    )


def _give_back(gaps: list[tuple[int, int]], first: int, end: int) -> None:
    """Make free memory a gap, one with those that it touches."""
    at = bisect(gaps, (first, end))
    if gaps[at][0] == end:
        end = gaps.pop(at)[1]
    if at and gaps[at - 1][1] == first:
        at -= 1
        first = gaps.pop(at)[0]
    gaps.insert(at, (first, end))


def _tightest(taken: Iterable[tuple[int, int]], size: int, limit: int) -> tuple[int, int]:
    """The smallest gap that holds `size` bytes, else one behind all that is taken."""
    best = None
    end = 0
    for start, stop in (*taken, (limit, limit)):
        if start - end >= size and (best is None or start - end < best[1] - best[0]):
            best = (end, start)
        end = max(end, stop if stop > start else end)
    return best or (end, end + size)
