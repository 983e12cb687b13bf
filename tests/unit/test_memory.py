"""The arena: what is live at the same time lies apart, and little is wasted."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.graph.memory import Arrangement, Block, arrange, in_time, lower_bound

LIVES = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 40), st.integers(0, 12)), max_size=60)


def holds(blocks: list[Block], found: Arrangement) -> None:
    """Blocks that live at the same time do not overlap, are aligned, and lie inside."""
    for number, one in enumerate(blocks):
        start = found.offsets[one.name]
        assert start % 64 == 0
        assert start >= 0
        assert start + one.bytes <= found.bytes
        for other in blocks[:number]:
            if one.first <= other.last and other.first <= one.last:
                begin = found.offsets[other.name]
                assert start + one.bytes <= begin or begin + other.bytes <= start


@given(LIVES)
@settings(max_examples=300, deadline=None)
def test_live_blocks_never_overlap(lives: list[tuple[int, int, int]]) -> None:
    blocks = [
        Block(name=str(number), bytes=size, first=first, last=first + length)
        for number, (size, first, length) in enumerate(lives)
    ]
    found = arrange(blocks)
    holds(blocks, found)
    assert lower_bound(blocks) <= found.bytes <= sum(block.size for block in blocks)
    assert arrange(blocks) == found
    quick = in_time(blocks)
    holds(blocks, quick)
    assert quick.bytes <= sum(block.size for block in blocks)


def graphs() -> dict[str, list[Block]]:
    """The activations, in bytes, of networks of well-known forms."""
    found: dict[str, list[Block]] = {}
    residual, sizes = [], [(56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)]
    step = 0
    for side, width, count in sizes:
        for _ in range(count):
            whole = 4 * side * side * width
            residual += [(whole, step, step + 1), (whole, step + 1, step + 2)]
            residual += [(4 * whole, step + 2, step + 5)]
            step += 3
    found["residual"] = named(residual)
    dense, step = [], 0
    for side, start, count in ((56, 64, 6), (28, 128, 12), (14, 256, 24), (7, 512, 16)):
        for number in range(count):
            joined = 4 * side * side * (start + 32 * number)
            dense += [
                (joined, step, step + 3),
                (joined, step + 1, step + 2),
                (4 * side * side * 128, step + 2, step + 3),
                (4 * side * side * 32, step + 3, step + 4),
            ]
            step += 4
    found["dense"] = named(dense)
    inception, step = [], 0
    widths = cycle((64, 192, 32, 96, 128))
    for side in (28, 28, 14, 14, 14, 14, 14, 7, 7):
        inception.append((4 * side * side * 480, step, step + 7))
        for branch in range(4):
            inception.append((4 * side * side * next(widths), step + branch, step + 8))
            inception.append((4 * side * side * 96, step + 2 * branch, step + 2 * branch + 1))
        step += 8
    found["inception"] = named(inception)
    return found


def named(lives: list[tuple[int, int, int]]) -> list[Block]:
    return [
        Block(name=str(number), bytes=size, first=first, last=last)
        for number, (size, first, last) in enumerate(lives)
    ]


@pytest.mark.parametrize("name", graphs())
def test_networks_come_close_to_the_lower_bound(name: str) -> None:
    blocks = graphs()[name]
    found = arrange(blocks)
    holds(blocks, found)
    assert found.bytes <= 1.1 * lower_bound(blocks)


def test_lives_too_many_to_compare_are_placed_all_the_same() -> None:
    blocks = named([(64 + number % 7, number, 40_000) for number in range(20_000)])
    assert arrange(blocks).bytes == lower_bound(blocks)


def test_nothing_takes_nothing() -> None:
    assert arrange([]) == Arrangement(offsets={}, bytes=0)


def test_a_long_chain_takes_two_blocks() -> None:
    chain = [Block(name=str(step), bytes=64, first=step, last=step + 1) for step in range(50_000)]
    assert arrange(chain).bytes == 128
