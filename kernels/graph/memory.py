"""Where tensors lie in the arena, from their lifetimes alone.

Steps are the calls of a network, numbered from 0 on. A block holds its bytes from the step
that fills it to the last step that reads it, both included. Blocks whose lives overlap lie
apart; others may share memory. The best arrangement is NP-hard to find; the greedy one by
size, which puts the largest block first and each where the gap is the tightest, comes within
a few percent of the lower bound (Pisarchyk and Lee, "Efficient memory management for deep
neural net inference", 2020, section 5). Of a few orders, the best is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from kernels.plan import ARENA_ALIGNMENT


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
MOST_BLOCKS = 1 << 14
"""Above so many blocks the first order is enough: graphs of that size take long."""


def aligned(size: int, alignment: int = ARENA_ALIGNMENT) -> int:
    """The size rounded up to a multiple of the alignment."""
    return -(-size // alignment) * alignment


def lower_bound(blocks: Iterable[Block]) -> int:
    """The largest sum of the blocks that are live at one step: no arena can be smaller."""
    changes: dict[int, int] = {}
    for block in blocks:
        changes[block.first] = changes.get(block.first, 0) + block.size
        changes[block.last + 1] = changes.get(block.last + 1, 0) - block.size
    live = largest = 0
    for step in sorted(changes):
        live += changes[step]
        largest = max(largest, live)
    return largest


def arrange(blocks: Sequence[Block]) -> Arrangement:
    """The smallest arrangement that some order gives; the same in every run."""
    bound = lower_bound(blocks)
    orders = ORDERS if len(blocks) <= MOST_BLOCKS else ORDERS[:1]
    best = None
    for order in orders:
        found = _greedy(sorted(blocks, key=order))
        if best is None or found.bytes < best.bytes:
            best = found
        if best.bytes == bound:
            break
    return best or Arrangement(offsets={}, bytes=0)


def _greedy(blocks: Sequence[Block]) -> Arrangement:
    """Each block in turn where it fits the tightest among those that live at the same time."""
    live: dict[int, list[int]] = {}
    offsets: list[int] = []
    total = 0
    for number, block in enumerate(blocks):
        steps = range(block.first, block.last + 1)
        rivals = {rival for step in steps for rival in live.get(step, ())}
        taken = sorted((offsets[rival], offsets[rival] + blocks[rival].size) for rival in rivals)
        offset = _tightest(taken, block.size)
        offsets.append(offset)
        total = max(total, offset + block.size)
        for step in steps:
            live.setdefault(step, []).append(number)
    return Arrangement(
        offsets={block.name: offset for block, offset in zip(blocks, offsets, strict=True)}, bytes=total
    )


def _tightest(taken: Iterable[tuple[int, int]], size: int) -> int:
    """The offset of the smallest gap that holds `size` bytes, else behind all that is taken."""
    best, waste = -1, 0
    end = 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap - size < waste):
            best, waste = end, gap - size
        end = max(end, stop)
    return best if best >= 0 else end
