"""Cutting extents into tiles: evenly, and exactly, so that no tile is ever masked."""

from __future__ import annotations

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


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A window sliding over an image, NHWC: sizes in elements, padding before the edge.

    A matrix product is the case of a single image row: `in_w` = `out_w` = m, one tap.
    """

    batch: int
    in_h: int
    in_w: int
    channels: int
    out_h: int
    out_w: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0

    def taps(self, column: int) -> tuple[int, int]:
        """The range of horizontal taps that fall inside the image for an output column."""
        start = column * self.stride[1] - self.left
        return max(0, -start), min(self.kernel[1], self.in_w - start)


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
    for rows in spread(window.out_w, most):
        segments = _segments([window.taps(first + row) for row in range(rows)], window.kernel[1])
        inner = segments == ((0, window.kernel[1], tuple(range(rows))),)
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
