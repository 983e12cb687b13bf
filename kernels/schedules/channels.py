"""Work that is independent for each channel: sliding windows, element-wise maps, rows.

Vectors run along the channels, the contiguous axis of NHWC; memory is passed over once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kernels.schedules.contraction import vertical_taps
from kernels.schedules.tiles import Window, pieces, runs, spread
from toolchains.target import CPU


class Sliding(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule: `mr` output pixels by `nr` channels in registers."""

    mr: int
    nr: int


def choose(window: Window, cpu: CPU) -> Sliding:
    """As many neighbouring pixels as half the registers hold, two vectors of channels each.

    Half: the other half is for the loaded elements and weights of the taps in flight.
    """
    nr = min(2 * cpu.lanes, window.channels)
    widest = max(
        sum(cpu.registers_of(piece) for _, piece in pieces(width, cpu.lanes))
        for width in (nr, window.channels % nr)
        if width
    )
    most = max(1, cpu.vector_registers // 2 // widest)
    return Sliding(mr=spread(window.out_w, most)[0], nr=nr)


def emit_window(
    b: Any,
    window: Window,
    schedule: Sliding,
    x: Any,
    *,
    initial: float,
    combine: Callable[[Any, Any, Any, Any, Any, int], Any],
    finish: Callable[[Any, Any, Any, tuple[Any, int]], None],
) -> None:
    """Fold the elements under each window, one channel apart from the other.

    combine(accumulator, element, tap_row, tap_column, channel, lanes) gives the new
    accumulator; finish(accumulator, pixel, channel, (rows, columns)) stores it and gets
    the number of taps that lay inside the image.
    """
    channels = window.channels
    full, rest = divmod(channels, schedule.nr)
    blocks = [part for part in ((schedule.nr, full, 0), (rest, 1, channels - rest)) if part[0] * part[1]]
    for width, count, base in blocks:
        vectors = pieces(width, b.cpu.lanes)
        with b.loop(0, window.batch) as batch, b.loop(0, window.out_h) as line, b.loop(0, count) as number:
            channel = number * width + base
            for run in runs(window, schedule.mr):
                with b.loop(0, run.repeat) as tile:
                    first = tile * run.rows + run.first
                    widths = [w for _ in range(run.rows) for _, w in vectors]
                    accumulators = b.registers(widths)
                    for place, lanes in enumerate(widths):
                        accumulators[place] = b.constant(initial, lanes)
                    low, high = vertical_taps(b, window, line)
                    with b.loop(low, high) as tap:
                        height = line * window.stride[0] + tap - window.top
                        start = first * window.stride[1] - window.left
                        origin = (batch * window.in_h + height) * window.in_w + start
                        for tap_low, tap_high, rows in run.segments:
                            with b.loop(tap_low, tap_high) as column:
                                for row in rows:
                                    pixel = origin + row * window.stride[1] + column
                                    for v, (offset, lanes) in enumerate(vectors):
                                        place = row * len(vectors) + v
                                        element = b.load(x, pixel * channels + channel + offset, lanes)
                                        accumulators[place] = combine(
                                            accumulators[place],
                                            element,
                                            tap,
                                            column,
                                            channel + offset,
                                            lanes,
                                        )
                    for row in range(run.rows):
                        inside = sum(h - lo for lo, h, rows in run.segments if row in rows)
                        output = (batch * window.out_h + line) * window.out_w + first + row
                        for v, (offset, _) in enumerate(vectors):
                            finish(
                                accumulators[row * len(vectors) + v],
                                output,
                                channel + offset,
                                (high - low, inside),
                            )


def emit_map(b: Any, elements: int, body: Callable[[Any, int], None]) -> None:
    """body(index, lanes) over a flat array, in whole vectors and then exact pieces."""
    lanes = b.cpu.lanes
    whole = elements // lanes
    if whole:
        with b.loop(0, whole) as number:
            body(number * lanes, lanes)
    for offset, width in pieces(elements - whole * lanes, lanes):
        body(whole * lanes + offset, width)


def emit_fold(
    b: Any,
    start: Any,
    elements: int,
    initial: float,
    element: Callable[[Any, int], Any],
    combine: Callable[[Any, Any], Any],
) -> Any:
    """Fold a row into one scalar: lane by lane in vectors, then across lanes, then the rest.

    The order is fixed by the length and the lanes alone, so that a target's result is the
    same in every build.
    """
    lanes = b.cpu.lanes
    whole = elements // lanes
    total = b.registers([1])
    total[0] = b.constant(initial, 1)
    if whole:
        accumulator = b.registers([lanes])
        accumulator[0] = b.constant(initial, lanes)
        with b.loop(0, whole) as number:
            accumulator[0] = combine(accumulator[0], element(start + number * lanes, lanes))
        vector = b.let(accumulator[0])
        for lane in range(lanes):
            total[0] = combine(total[0], b.lane(vector, lane))
    if whole * lanes < elements:
        with b.loop(whole * lanes, elements) as index:
            total[0] = combine(total[0], element(start + index, 1))
    return b.let(total[0])
