"""Cutting extents into tiles: evenly, and exactly, so that no tile is ever masked."""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec


def spread(extent: int, most: int) -> list[int]:
    """Sizes of the fewest tiles of at most `most` that cover `extent`, as equal as can be.

    The larger ones come first; there are at most two sizes: 7 in tiles of 6 is 4 + 3.
    """
    count = -(-extent // most)
    small, larger = divmod(extent, count)
    return [small + 1] * larger + [small] * (count - larger)


def pieces(columns: int, lanes: int) -> list[tuple[int, int]]:
    """(offset, width) of the vectors that cover `columns`, the last ones narrower.

    Widths are `lanes`, then falling powers of two: 23 columns in lanes of 8 are
    8 + 8 + 4 + 2 + 1.
    """
    found = []
    offset = 0
    width = lanes
    while offset < columns:
        while width > columns - offset:
            width = _smaller(width)
        found.append((offset, width))
        offset += width
    return found


def _smaller(width: int) -> int:
    return 1 << ((width - 1).bit_length() - 1)


Three = tuple[int, int, int]
ONES: Three = (1, 1, 1)
ZEROS: Three = (0, 0, 0)


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A window sliding over an image, NDHWC: extents and steps by depth, height and width.

    A matrix product is the case of one row of m pixels and one tap; images of one or two
    dimensions have extent 1 in the others. `channels` are those of one group.

    A window may be one phase of a larger one: its tap t is tap `tap_first + tap_step t` of
    `taps_in_all`, its result o is result `out_first + out_step o` of `out_in_all`.
    """

    batch: int
    size: Three
    channels: int
    out: Three
    kernel: Three = ONES
    stride: Three = ONES
    dilation: Three = ONES
    padding: Three = ZEROS
    tap_first: Three = ZEROS
    tap_step: Three = ONES
    taps_in_all: Three | None = None
    out_first: Three = ZEROS
    out_step: Three = ONES
    out_in_all: Three | None = None

    @property
    def terms(self) -> int:
        """Terms of the whole sum: taps in all times channels."""
        return prod(self.taps_in_all or self.kernel) * self.channels

    @property
    def outputs(self) -> Three:
        """Extents of the whole result."""
        return self.out_in_all or self.out

    def taps(self, axis: int, place: int) -> tuple[int, int]:
        """The range of taps that fall inside the image for an output place along an axis."""
        start = place * self.stride[axis] - self.padding[axis]
        step = self.dilation[axis]
        low = max(0, -(start // step))
        return low, max(low, min(self.kernel[axis], -((start - self.size[axis]) // step)))

    def pixel(self, batch: Any, place: tuple[Any, Any, Any]) -> Any:
        """The running number of an output pixel in the whole result."""
        number = batch
        for axis, at in enumerate(place):
            there = at * self.out_step[axis] + self.out_first[axis]
            number = number * self.outputs[axis] + there
        return number


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`repeat` tiles of `rows` output columns each, from column `first` on.

    `segments` are (tap_low, tap_high, rows): the ranges of horizontal taps together with
    the rows of the tile for which those taps lie inside the image.
    """

    first: int
    rows: int
    repeat: int
    segments: tuple[tuple[int, int, tuple[int, ...]], ...]


def runs(window: Window, most: int) -> list[Run]:
    """The tiles of one output row; equal neighbours that touch no edge become one run."""
    found: list[Run] = []
    first = 0
    for rows in spread(window.out[2], most):
        segments = _segments([window.taps(2, first + row) for row in range(rows)], window.kernel[2])
        inner = segments in (((0, window.kernel[2], tuple(range(rows))),), ())
        last = found[-1] if found else None
        if last and inner and last.rows == rows and last.segments == segments:
            found[-1] = msgspec.structs.replace(last, repeat=last.repeat + 1)
        else:
            found.append(Run(first=first, rows=rows, repeat=1, segments=segments))
        first += rows
    return found


def _segments(taps: list[tuple[int, int]], width: int) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    found: list[tuple[int, int, tuple[int, ...]]] = []
    for tap in range(width):
        rows = tuple(row for row, (low, high) in enumerate(taps) if low <= tap < high)
        if not rows:
            continue
        if found and found[-1][1] == tap and found[-1][2] == rows:
            found[-1] = (found[-1][0], tap + 1, rows)
        else:
            found.append((tap, tap + 1, rows))
    return tuple(found)
