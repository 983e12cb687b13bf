"""Work that is independent for each channel: sliding windows, element-wise maps, rows.

Vectors run along the channels, the contiguous axis of NHWC; memory is passed over once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import msgspec

from kernels.schedules.blocking import Lines, Tile
from kernels.schedules.contraction import inner_taps
from kernels.schedules.tiles import Run, Window, pieces, runs, spread
from toolchains.target import CPU

FAR = 2
"""An image of so many times the second level's size leaves little of itself there."""


class Sliding(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule: `mr` output pixels by `nr` channels in registers.

    With `prefetch` each tile asks for what the one below it will be the first to read.
    """

    mr: Tile
    nr: Tile
    prefetch: Lines = 0


def choose(window: Window, cpu: CPU) -> Sliding:
    """As many neighbouring pixels as half the registers hold, two vectors of channels each.

    Half: the other half is for the loaded elements and weights of the taps in flight. Where nobody
    follows the strides of an image that stays in no near cache, it is asked for ahead; and if
    pixels have few taps in common, it is read one pixel at a time, in pieces as long as can be.
    """
    streams = cpu.prefetch and not cpu.follows_strides
    far = streams and 4 * prod(window.size) * window.channels > FAR * cpu.l2.bytes
    vectors = cpu.vector_registers // 2 // cpu.register_group if far and window.stride[2] > 1 else 2
    nr = min(vectors * cpu.lanes, window.channels)
    widest = max(
        sum(cpu.registers_of(piece) for _, piece in pieces(width, cpu.lanes))
        for width in (nr, window.channels % nr)
        if width
    )
    most = max(1, cpu.vector_registers // 2 // widest)
    return Sliding(mr=spread(window.out[2], most)[0], nr=nr, prefetch=int(far))


def emit_window(
    b: Any,
    window: Window,
    schedule: Sliding,
    x: Any,
    *,
    initial: float,
    combine: Callable[[Any, Any, Any, Any, int], Any],
    finish: Callable[[Any, Any, Any, Any], None],
    scalar: str = "float32",
) -> None:
    """Fold the elements under each window, of type `scalar`, one channel apart from the other.

    combine(accumulator, element, tap, channel, lanes) gives the new accumulator;
    finish(accumulator, pixel, channel, taps) stores it and gets the number of taps that
    lay inside the image.
    """
    channels = window.channels
    full, rest = divmod(channels, schedule.nr)
    blocks = [part for part in ((schedule.nr, full, 0), (rest, 1, channels - rest)) if part[0] * part[1]]
    with (
        b.loop(0, window.batch) as batch,
        b.loop(0, window.out[0]) as sheet,
        b.loop(0, window.out[1]) as line,
    ):
        for run in runs(window, schedule.mr):
            with b.loop(0, run.repeat) as tile:
                for width, count, base in blocks:
                    with b.loop(0, count) as number:
                        _emit_run(
                            b,
                            window,
                            x,
                            run,
                            (batch, sheet, line, tile * run.rows + run.first),
                            (number * width + base, pieces(width, b.cpu.lanes)),
                            initial=initial,
                            combine=combine,
                            finish=finish,
                            scalar=scalar,
                            prefetch=bool(schedule.prefetch),
                        )


def _emit_run(
    b: Any,
    window: Window,
    x: Any,
    run: Run,
    place: tuple[Any, Any, Any, Any],
    block: tuple[Any, list[tuple[int, int]]],
    *,
    initial: float,
    combine: Callable[..., Any],
    finish: Callable[..., None],
    scalar: str,
    prefetch: bool,
) -> None:
    """One tile of pixels by one block of channels."""
    batch, sheet, line, first = place
    channel, vectors = block
    if prefetch:
        _prefetch(b, window, x, run, place, block)
    widths = [w for _ in range(run.rows) for _, w in vectors]
    accumulators = b.registers(widths, scalar)
    for number, lanes in enumerate(widths):
        accumulators[number] = b.constant(initial, lanes, scalar)
    sheets = inner_taps(b, window, 0, sheet)
    lines = inner_taps(b, window, 1, line)
    with b.loop(*sheets) as sheet_tap, b.loop(*lines) as line_tap:
        depth = sheet * window.stride[0] - window.padding[0] + sheet_tap * window.dilation[0]
        height = line * window.stride[1] - window.padding[1] + line_tap * window.dilation[1]
        start = first * window.stride[2] - window.padding[2]
        origin = ((batch * window.size[0] + depth) * window.size[1] + height) * window.size[2] + start
        for tap_low, tap_high, rows in run.segments:
            with b.loop(tap_low, tap_high) as column:
                tap = (sheet_tap * window.kernel[1] + line_tap) * window.kernel[2] + column
                for row in rows:
                    pixel = origin + row * window.stride[2] + column * window.dilation[2]
                    for v, (offset, lanes) in enumerate(vectors):
                        at = row * len(vectors) + v
                        element = b.load(x, pixel * window.channels + channel + offset, lanes)
                        accumulators[at] = combine(accumulators[at], element, tap, channel + offset, lanes)
    taps = (sheets[1] - sheets[0]) * (lines[1] - lines[0])
    for row in range(run.rows):
        inside = sum(high - low for low, high, rows in run.segments if row in rows)
        pixel = window.pixel(batch, (sheet, line, first + row))
        for v, (offset, _) in enumerate(vectors):
            finish(accumulators[row * len(vectors) + v], pixel, channel + offset, taps * inside)


def _prefetch(
    b: Any,
    window: Window,
    x: Any,
    run: Run,
    place: tuple[Any, Any, Any, Any],
    block: tuple[Any, list[tuple[int, int]]],
) -> None:
    """Ask for the lines of the image that come into the window one line of the result further down."""
    batch, sheet, line, first = place
    channel, vectors = block
    depth = batch * window.size[0] + sheet * window.stride[0]
    last = (window.kernel[1] - 1) * window.dilation[1] - window.padding[1]
    for new in range(window.stride[1]):
        height = (line + 1) * window.stride[1] + last - new
        origin = (depth * window.size[1] + height) * window.size[2] + first * window.stride[2]
        for pixel in range(run.rows * window.stride[2]):
            for offset in range(0, sum(lanes for _, lanes in vectors), b.cpu.l1.line // 4):
                b.prefetch(x, (origin + pixel) * window.channels + channel + offset)


def emit_map(b: Any, elements: int, body: Callable[[Any, int], None]) -> None:
    """body(index, lanes) over a flat array, in whole vectors and then exact pieces."""

    def each(parts: list[Part]) -> None:
        for index, lanes in parts:
            body(index, lanes)

    emit_groups(b, elements, 1, each)


Part = tuple[Any, int]
"""Where a vector begins, and its lanes."""


def emit_groups(b: Any, elements: int, together: int, body: Callable[[list[Part]], None]) -> None:
    """body(parts) over a flat array: so many whole vectors at a time, and pieces of what is left.

    A body that may write over what it reads loads all parts before it stores the first: LLVM
    must not move a load before a store, and so could not join neighbouring ones.
    """
    lanes = b.cpu.lanes
    rounds = elements // (lanes * together)
    if rounds:
        with b.loop(0, rounds) as number:
            body([((number * together + part) * lanes, lanes) for part in range(together)])
    done = rounds * together * lanes
    left: list[Part] = [(done + offset, width) for offset, width in pieces(elements - done, lanes)]
    for first in range(0, len(left), together):
        body(left[first : first + together])


def emit_fold(
    b: Any,
    start: Any,
    elements: int,
    initial: float,
    element: Callable[[Any, int], Any],
    combine: Callable[[Any, Any], Any],
    chains: int = 1,
    scalar: str = "float32",
) -> Any:
    """Fold a row into one scalar: lane by lane in `chains` vectors, across these, then the rest.

    The order is fixed by the length, the lanes and the chains alone, so that a target's
    result is the same in every build. Several chains hide the latency of `combine`.
    """
    lanes = b.cpu.lanes
    whole = elements // lanes
    total = b.registers([1], scalar)
    total[0] = b.constant(initial, 1, scalar)
    if whole:
        chains = min(chains, whole, max(1, b.cpu.vector_registers // (4 * b.cpu.register_group)))
        accumulators = b.registers([lanes] * chains, scalar)
        for chain in range(chains):
            accumulators[chain] = b.constant(initial, lanes, scalar)
        rounds = whole // chains
        with b.loop(0, rounds) as number:
            for chain in range(chains):
                at = start + (number * chains + chain) * lanes
                accumulators[chain] = combine(accumulators[chain], element(at, lanes))
        for chain in range(whole - rounds * chains):
            at = start + (rounds * chains + chain) * lanes
            accumulators[chain] = combine(accumulators[chain], element(at, lanes))
        parts = [b.let(accumulators[chain]) for chain in range(chains)]
        while len(parts) > 1:
            parts = [b.let(combine(*pair)) for pair in zip(parts[::2], parts[1::2], strict=False)] + (
                parts[-1:] if len(parts) % 2 else []
            )
        vector = parts[0]
        while b.lanes(vector) > 1:
            low, high = b.halves(vector)
            vector = b.let(combine(low, high))
        total[0] = combine(total[0], vector)
    if whole * lanes < elements:
        with b.loop(whole * lanes, elements) as index:
            total[0] = combine(total[0], element(start + index, 1))
    return b.let(total[0])
