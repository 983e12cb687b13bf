"""Winograd's algorithm for 3 x 3 windows: its schedule, and what is emitted from it.

An image is cut into tiles of m x m results, and these into blocks. Of each block the data is
transformed into the arena, one matrix [tiles, channels] for each of the (m + 2)^2 elements of a
tile (Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, algorithm
1). Then, panel of filters after panel, these matrices are multiplied by those of the weights,
and the products, while they are near, are transformed into results. The matrices of the
transforms are in `kernels.winograd`, and the schedule comes from `kernels.schedules.tiling`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from kernels.schedules import contraction
from kernels.schedules.tiles import Window, pieces, spread
from kernels.schedules.tiling import Winograd, grid, places, product_window
from kernels.schedules.transforms import transform_data, transform_results
from kernels.winograd import TAPS


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be emitted: the shapes, the schedule, the operands and the arena."""

    window: Window
    columns: int
    schedule: Winograd
    x: Any
    w: Any
    y: Any
    arena: Any
    epilogue: Any


class _Plain:
    """The epilogue of a product that is yet to be transformed."""

    heavy = False

    def __call__(self, value: Any, _pixel: Any, _column: Any) -> Any:
        """The value itself."""
        return value


def emit(b: Any, task: Task) -> None:
    """Emit the loops over images and blocks of tiles."""
    schedule = task.schedule
    in_all = grid(task.window, schedule.m)
    with b.loop(0, task.window.batch) as image:
        for top, lines in _each_part(b, in_all[0], schedule.lines):
            for left, across in _each_part(b, in_all[1], schedule.across):
                block = _Block(b, task, (image, top, left), (lines, across))
                block.emit_data()
                for column, width in contraction.each_panel(b, task.columns, schedule.nr):
                    block.emit_products(column, width)
                    block.emit_results(column, width)


def _each_part(b: Any, extent: int, most: int) -> Iterator[tuple[Any, int]]:
    """Loop over parts of at most so many: the first of each, and how many there are."""
    first = 0
    for size, same in groupby(spread(extent, most)):
        count = len(list(same))
        with b.loop(0, count) as number:
            yield number * size + first, size
        first += count * size


def _each_vector(b: Any, extent: int) -> Iterator[tuple[Any, int]]:
    """Loop over vectors: the first element of each, and its lanes."""
    lanes = b.cpu.lanes
    whole = extent // lanes
    if whole:
        with b.loop(0, whole) as number:
            yield number * lanes, lanes
    for offset, width in pieces(extent - whole * lanes, lanes):
        yield whole * lanes + offset, width


class _Block:
    """Emits the work of one block: its first line and tile, and how many there are of them."""

    def __init__(self, b: Any, task: Task, first: tuple[Any, Any, Any], extents: tuple[int, int]) -> None:
        self._b, self._task = b, task
        self._image, self._top, self._left = first
        self._lines, self._across = extents
        self._m, self._side = task.schedule.m, task.schedule.side
        self._places = places(task.window, task.schedule, b.cpu.lanes)
        self._span = self._across * self._m + TAPS - 1

    # -- data ----------------------------------------------------------------------------

    def emit_data(self) -> None:
        """B^T d B: along the height for a line of tiles, then along the width of each tile.

        So neighbouring tiles share what they have in common of the first.
        """
        b = self._b
        for channel, lanes in _each_vector(b, self._task.window.channels):
            with b.loop(0, self._lines) as line:
                for low, high, first, last in self._heights():
                    row = self._top + line
                    with b.loop(b.maximum(row, first), b.minimum(row + 1, last)) as here:
                        self._down(here, (low, high), channel, lanes)
                self._sideways(line, channel, lanes)

    def _heights(self) -> Iterator[tuple[int, int, int, int]]:
        """(low, high, first, last): lines of tiles of whose elements [low, high) are in the image."""
        window = self._task.window
        count, _ = grid(window, self._m)
        starts = [line * self._m - window.padding[1] for line in range(count)]
        inside = [(max(0, -start), min(self._side, window.size[1] - start)) for start in starts]
        first = 0
        for (low, high), same in groupby(inside):
            last = first + len(list(same))
            yield low, high, first, last
            first = last

    def _down(self, row: Any, inside: tuple[int, int], channel: Any, lanes: int) -> None:
        """Along the height, column by column of a line of tiles; zeros beside the image."""
        b, task, window = self._b, self._task, self._task.window
        height, width = window.size[1:]
        start = self._left * self._m - window.padding[2]
        low = b.maximum(0, 0 - start)
        high = b.minimum(self._span, width - start)
        for outside in ((0, low), (high, self._span)):
            with b.loop(*outside) as column:
                for number in range(self._side):
                    self._keep(number, column, b.constant(0.0, lanes))
        with b.loop(low, high) as column:
            top = self._image * height + row * self._m - window.padding[1]
            values = [
                b.let(
                    b.load(task.x, ((top + at) * width + start + column) * window.channels + channel, lanes)
                )
                if inside[0] <= at < inside[1]
                else None
                for at in range(self._side)
            ]
            for number, value in enumerate(transform_data(b, self._m, values)):
                self._keep(number, column, b.constant(0.0, lanes) if value is None else value)

    def _sideways(self, line: Any, channel: Any, lanes: int) -> None:
        """Along the width, tile by tile."""
        b, task = self._b, self._task
        with b.loop(0, self._side) as row, b.loop(0, self._across) as tile:
            values = [b.let(self._kept(row, tile * self._m + at, lanes)) for at in range(self._side)]
            place = (line * self._across + tile) * task.window.channels + channel
            for number, value in enumerate(transform_data(b, self._m, values)):
                matrix = (row * self._side + number) * self._places.data_apart
                b.store(task.arena, matrix + place, value)

    def _keep(self, row: Any, column: Any, value: Any) -> None:
        place = (row * self._span + column) * self._b.lanes(value)
        self._b.store(self._task.arena, self._places.scratch + place, value)

    def _kept(self, row: Any, column: Any, lanes: int) -> Any:
        place = (row * self._span + column) * lanes
        return self._b.load(self._task.arena, self._places.scratch + place, lanes)

    # -- products ------------------------------------------------------------------------

    def emit_products(self, column: Any, width: int) -> None:
        """One product for each element of a tile, with a panel of filters."""
        b, task, channels = self._b, self._task, self._task.window.channels
        panel = column * (channels * self._side**2)
        with b.loop(0, self._side**2) as point:
            contraction.emit(
                b,
                contraction.Product(
                    window=product_window(self._lines * self._across, channels),
                    columns=width,
                    schedule=task.schedule,
                    image=contraction.Image(batch=0, pixel=channels),
                    x=task.arena,
                    w=task.w,
                    y=task.arena,
                    packed=True,
                    epilogue=_Plain(),
                    x_offset=point * self._places.data_apart,
                    w_offset=point * (channels * width) + panel,
                    y_offset=point * self._places.products_apart + self._places.products,
                    y_columns=width,
                ),
            )

    # -- results -------------------------------------------------------------------------

    def emit_results(self, column: Any, width: int) -> None:
        """A^T p A and the epilogue, tile by tile; no more of a partial one than is in the result."""
        b, window = self._b, self._task.window
        full, rest = divmod(window.out[2], self._m)
        for place, lanes in _each_vector(b, width):
            with b.loop(0, self._lines) as line:
                for first, last, count in ((0, full, self._m), (full, full + 1, rest)):
                    if count and last > first:
                        span = b.maximum(first, self._left), b.minimum(last, self._left + self._across)
                        with b.loop(*span) as tile:
                            number = line * self._across + (tile - self._left)
                            products = number * width + place + self._places.products
                            self._tile((line, tile), count, products, column + place, lanes)

    def _tile(self, at_tile: tuple[Any, Any], count: int, products: Any, column: Any, lanes: int) -> None:
        """Along the height into scratch memory, then along the width, row by row of the result."""
        b, task, window, m, side = self._b, self._task, self._task.window, self._m, self._side
        arena, scratch = task.arena, self._places.scratch
        line, tile = at_tile
        with b.loop(0, side) as number:
            values = [
                b.let(b.load(arena, (at * side + number) * self._places.products_apart + products, lanes))
                for at in range(side)
            ]
            for at, value in enumerate(transform_results(b, m, values, m)):
                b.store(arena, scratch + (at * side + number) * lanes, value)
        row = self._top + line
        with b.loop(0, b.minimum(m, window.out[1] - row * m)) as at:
            values = [b.let(b.load(arena, scratch + (at * side + n) * lanes, lanes)) for n in range(side)]
            pixel = window.pixel(self._image, (0, row * m + at, tile * m))
            results = transform_results(b, m, values, count)
            if task.epilogue.heavy:
                for number, value in enumerate(results):
                    b.store(task.y, (pixel + number) * task.columns + column, value)
                with b.loop(0, count) as number:
                    value = b.load(task.y, (pixel + number) * task.columns + column, lanes)
                    self._finish(pixel + number, column, value)
                return
            for number, value in enumerate(results):
                self._finish(pixel + number, column, value)

    def _finish(self, pixel: Any, column: Any, value: Any) -> None:
        task = self._task
        self._b.store(task.y, pixel * task.columns + column, task.epilogue(value, pixel, column))
