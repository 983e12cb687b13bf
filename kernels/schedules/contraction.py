"""Products summed over taps and channels: matrix products and convolutions.

The register tile holds `mr` output pixels by `nr` output columns, its accumulators stay in
registers over a block of channels, and the second operand is read from panels of `nr`
columns (Goto and Van de Geijn, ACM TOMS 34(3), 2008). Edge tiles are kernels of their own
with exact shapes. The schedule comes from `kernels.schedules.blocking`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product as pairs
from typing import Any

import msgspec

from kernels.schedules.blocking import Contraction, panels, pixel_blocks
from kernels.schedules.tiles import Run, Window, pieces, runs


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """Where the first operand lies: its strides in elements."""

    batch: int
    depth: int = 0
    row: int = 0
    pixel: int
    channel: int = 1


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be emitted: the shapes, the schedule, and where the operands lie.

    `w` is in panels of `nr` columns, or a row-major matrix where not `packed`. The offsets
    say where one group of channels begins in each operand; y has `y_columns` in all.
    """

    window: Window
    columns: int
    schedule: Contraction
    image: Image
    x: Any
    w: Any
    y: Any
    packed: bool
    epilogue: Any
    x_offset: Any = 0
    w_offset: Any = 0
    w_batch: int = 0
    y_offset: Any = 0
    y_columns: int = 0


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One register tile: output pixels of one line by columns of one panel, some channels."""

    batch: Any
    line: tuple[Any, Any]
    first: Any
    run: Run
    column: Any
    width: int
    channel: Any
    channels: int
    ordinal: Any


def emit(b: Any, product: Product) -> None:
    """Emit the loops over blocks of pixels, panels, blocks of channels and tiles, in this order."""
    window, schedule = product.window, product.schedule
    count, _, _ = pixel_blocks(window, schedule)
    with b.loop(0, window.batch) as batch, b.loop(0, window.out[0]) as sheet, b.loop(0, count) as block:
        for column, width in each_panel(b, product.columns, schedule.nr):
            for channel, channels in _each_depth(b, window.channels, schedule.kc):
                for line, run, first, ordinal in _each_tile(b, window, schedule, block):
                    tile = Tile(
                        batch=batch,
                        line=(sheet, line),
                        first=first,
                        run=run,
                        column=column,
                        width=width,
                        channel=channel,
                        channels=channels,
                        ordinal=ordinal,
                    )
                    _Body(b, product, tile).emit()


def each_panel(b: Any, columns: int, nr: int) -> Iterator[tuple[Any, int]]:
    """Loop over the panels: the first column of each, and its width."""
    column = 0
    for width, count in panels(columns, nr):
        with b.loop(0, count) as number:
            yield number * width + column, width
        column += count * width


def _each_depth(b: Any, channels: int, kc: int) -> Iterator[tuple[Any, int]]:
    """Loop over the blocks of channels: the first of each, and how many there are."""
    full, rest = divmod(channels, kc)
    for first, extent, count in ((0, kc, full), (full * kc, rest, min(rest, 1))):
        if count:
            with b.loop(0, count) as number:
                yield number * extent + first, extent


def _each_tile(
    b: Any, window: Window, schedule: Contraction, block: Any
) -> Iterator[tuple[Any, Run, Any, Any]]:
    """Loop over the tiles of a block of pixels: line, run, first pixel, number in the block."""
    rows = runs(window, schedule.mr)
    count, lines, tiles = pixel_blocks(window, schedule)
    in_line = sum(run.repeat for run in rows)
    part = _part(b, block, lines, count, (0, window.out[1]))
    with b.loop(*part) as line:
        begin = 0
        before = (line - part[0]) * in_line if lines else -(block * tiles)
        for run in rows:
            span = (begin, begin + run.repeat)
            with b.loop(*_part(b, block, tiles, count, span)) as tile:
                yield line, run, (tile - begin) * run.rows + run.first, before + tile
            begin = span[1]


def _part(b: Any, block: Any, each: int, count: int, span: tuple[int, int]) -> tuple[Any, Any]:
    """What part of a span of lines or tiles lies in a block of `each`."""
    if count == 1 or each == 0:
        return span
    low = block * each
    return b.maximum(low, span[0]), b.minimum(low + each, span[1])


class _Body:
    """Emits the work of one tile."""

    def __init__(self, b: Any, product: Product, tile: Tile) -> None:
        self._b, self._product, self._tile = b, product, tile
        self._vectors = pieces(tile.width, b.cpu.lanes)
        self._accumulators = b.registers(
            [width for _ in range(tile.run.rows) for _, width in self._vectors]
        )
        self._whole = tile.channels == product.window.channels
        self._stride = product.window.stride[2] * product.image.pixel

    def emit(self) -> None:
        """Zero or resume the sums, add the terms, finish or suspend."""
        b, product, tile = self._b, self._product, self._tile
        window, image = product.window, product.image
        if product.schedule.prefetch_result:
            for row, at in pairs(range(tile.run.rows), range(0, tile.width, b.cpu.l1.line // 4)):
                b.prefetch(product.y, self._place(row, at), write=True)
        if self._whole:
            self._begin()
        else:
            b.either(b.index(tile.channel) == 0, self._begin, self._resume)
        in_all = window.taps_in_all or window.kernel
        sheet_taps, line_taps = (inner_taps(b, window, axis, tile.line[axis]) for axis in (0, 1))
        with b.loop(*sheet_taps) as sheet_tap, b.loop(*line_taps) as line_tap:
            origin = product.x_offset + tile.batch * image.batch
            depth: Any = 0
            for axis, tap, stride in ((0, sheet_tap, image.depth), (1, line_tap, image.row)):
                at = tile.line[axis] * window.stride[axis] - window.padding[axis]
                origin = origin + (at + tap * window.dilation[axis]) * stride
                depth = depth * in_all[axis] + tap * window.tap_step[axis] + window.tap_first[axis]
            origin = origin + (tile.first * window.stride[2] - window.padding[2]) * image.pixel
            self._line_of_taps(origin, depth * in_all[2] * window.channels)
        if self._whole:
            self._finish()
        else:
            last = b.index(tile.channel) + tile.channels == window.channels
            b.either(last, self._finish, self._suspend)

    # -- beginning and end -----------------------------------------------------------

    def _begin(self) -> None:
        for number, (_, width) in enumerate(self._vectors * self._tile.run.rows):
            self._accumulators[number] = self._b.constant(0.0, width)

    def _resume(self) -> None:
        """Go on with the sums that an earlier block of channels left in the result."""
        for number, (place, width) in enumerate(self._places(self._vectors)):
            self._accumulators[number] = self._b.load(self._product.y, place, width)

    def _suspend(self) -> None:
        """Leave the sums in the result for the next block of channels."""
        for number, (place, _) in enumerate(self._places(self._vectors)):
            self._b.store(self._product.y, place, self._accumulators[number])

    def _finish(self) -> None:
        """Apply the epilogue and store; a heavy one in a loop over rows, to be there but once."""
        b, product, tile = self._b, self._product, self._tile
        if product.epilogue.heavy:
            self._suspend()
            with b.loop(0, tile.run.rows) as row:
                for offset, width in self._vectors:
                    place = self._place(row, offset)
                    self._apply(row, offset, b.load(product.y, place, width))
            return
        for row in range(tile.run.rows):
            for number, (offset, _) in enumerate(self._vectors):
                self._apply(row, offset, self._accumulators[row * len(self._vectors) + number])

    def _apply(self, row: Any, offset: int, value: Any) -> None:
        column = self._product.y_offset + self._tile.column + offset
        value = self._product.epilogue(value, self._pixel(row), column)
        self._b.store(self._product.y, self._place(row, offset), value)

    def _pixel(self, row: Any) -> Any:
        tile = self._tile
        return self._product.window.pixel(tile.batch, (*tile.line, tile.first + row))

    def _place(self, row: Any, offset: int) -> Any:
        """The index in the result of a row's element of a panel."""
        columns = self._product.y_columns or self._product.columns
        return self._pixel(row) * columns + (self._product.y_offset + self._tile.column + offset)

    def _places(self, vectors: list[tuple[int, int]]) -> list[tuple[Any, int]]:
        """Where such vectors of each row lie in the result, and their widths."""
        return [
            (self._place(row, offset), width)
            for row in range(self._tile.run.rows)
            for offset, width in vectors
        ]

    # -- the sum -----------------------------------------------------------------------

    def _line_of_taps(self, origin: Any, depth: Any) -> None:
        """The terms of one line of taps. `origin` is under tap 0 of the tile's first pixel.

        Taps and channels are one loop where they lie one after the other in both operands.
        """
        tile, window, image = self._tile, self._product.window, self._product.image
        channels = window.channels
        plain = window.dilation[2] == window.tap_step[2] == image.channel == 1
        for low, high, rows in tile.run.segments:
            if plain and image.pixel == channels == tile.channels:
                start = origin, depth + window.tap_first[2] * channels
                self._terms(rows, start, (low * channels, high * channels))
                continue
            with self._b.loop(low, high) as tap:
                there = origin + tap * (window.dilation[2] * image.pixel)
                weights = depth + (tap * window.tap_step[2] + window.tap_first[2]) * channels
                start = there + tile.channel * image.channel, weights + tile.channel
                self._terms(rows, start, (0, tile.channels))

    def _terms(self, rows: tuple[int, ...], start: tuple[Any, Any], span: tuple[int, int]) -> None:
        """Terms `span` of a line, in rounds of `unroll` steps of `ku`, then in steps, then singly.

        `start` is the image's element, and the number of the term, at the beginning of the
        line. With prefetching, the rounds that read one line of the cache of each row go
        together.
        """
        b, schedule = self._b, self._product.schedule
        begin, end = span
        ku = schedule.ku if self._product.image.channel == 1 else 1
        line = b.cpu.l1.line // 4
        whole = schedule.unroll * ku
        if (
            (schedule.prefetch_image or schedule.prefetch_panel)
            and line % whole == 0
            and end - begin >= line
        ):
            lines = (end - begin) // line
            with b.loop(0, lines) as number:
                first = number * line + begin
                self._prefetch(rows, start, first)
                with b.loop(0, line // whole) as part:
                    self._round(rows, start, first + part * whole, (schedule.unroll, ku))
            begin += lines * line
        for steps, at_once in ((schedule.unroll, ku), (1, ku), (1, 1)):
            rounds = (end - begin) // (steps * at_once)
            if rounds:
                with b.loop(0, rounds) as number:
                    first = number * (steps * at_once) + begin
                    self._round(rows, start, first, (steps, at_once))
                begin += rounds * steps * at_once

    def _prefetch(self, rows: tuple[int, ...], start: tuple[Any, Any], first: Any) -> None:
        """What the rounds that read a line from term `first` on ask for.

        Lines of the next panel are spread evenly over the rounds of all tiles that read this one.
        """
        b, product, tile = self._b, self._product, self._tile
        if product.schedule.prefetch_image:
            place = start[0] + first * product.image.channel
            for row in rows:
                b.prefetch(product.x, place + (row + tile.run.rows) * self._stride)
        if product.schedule.prefetch_panel and product.packed:
            terms = product.window.terms
            panel = product.w_offset + tile.batch * product.w_batch + (tile.column + tile.width) * terms
            passed = (tile.ordinal * terms + (start[1] + first)) * product.schedule.prefetch_panel
            for number in range(product.schedule.prefetch_panel):
                b.prefetch(product.w, panel + passed + number * (b.cpu.l1.line // 4))

    def _round(
        self, rows: tuple[int, ...], start: tuple[Any, Any], first: Any, extent: tuple[int, int]
    ) -> None:
        """So many steps of so many terms at once, from term `first` of a line on."""
        steps, at_once = extent
        for step in range(steps):
            self._step(rows, start, first + step * at_once, at_once)

    def _step(self, rows: tuple[int, ...], start: tuple[Any, Any], q: Any, ku: int) -> None:
        """`ku` terms of the sum, from term `q` of a line of taps and channels on."""
        b, product, tile = self._b, self._product, self._tile
        origin, depth = start
        panel = product.w_offset + tile.batch * product.w_batch
        panel = panel + (tile.column * product.window.terms if product.packed else tile.column)
        stride = tile.width if product.packed else product.columns
        factors = [
            b.load(product.x, origin + row * self._stride + q * product.image.channel, ku) for row in rows
        ]
        for unroll in range(ku):
            weights = [
                b.load(product.w, panel + (depth + q + unroll) * stride + offset, width)
                for offset, width in self._vectors
            ]
            for row, loaded in zip(rows, factors, strict=True):
                scalar = b.lane(loaded, unroll)
                for number, (_, width) in enumerate(self._vectors):
                    place = row * len(self._vectors) + number
                    factor = b.splat(scalar, width)
                    self._accumulators[place] = b.fma(factor, weights[number], self._accumulators[place])


def inner_taps(b: Any, window: Window, axis: int, place: Any) -> tuple[Any, Any]:
    """The range of taps inside the image for an output place along an axis, as indices."""
    kernel, stride, step = window.kernel[axis], window.stride[axis], window.dilation[axis]
    size, padding = window.size[axis], window.padding[axis]
    start = place * stride - padding
    low: Any = 0
    high: Any = kernel
    if padding > 0:
        low = b.quotient(b.maximum(step - 1 - start, 0), step)
    if (window.out[axis] - 1) * stride - padding + (kernel - 1) * step >= size:
        high = b.minimum(kernel, b.quotient(b.maximum(size - start + step - 1, 0), step))
    return low, high


def emit_packing(
    b: Any,
    buffers: tuple[Any, Any],
    first: Any,
    extents: tuple[int, int],
    nr: int,
    strides: tuple[int, int],
) -> None:
    """Copy a matrix of depth x columns with the given strides into panels of `nr`.

    It begins at `first` in both buffers.
    """
    source, target = buffers
    depth, columns = extents
    for column, width in each_panel(b, columns, nr):
        with b.loop(0, depth) as q, b.loop(0, width) as lane:
            value = b.load(source, first + q * strides[0] + (column + lane) * strides[1], 1)
            b.store(target, first + column * depth + q * width + lane, value)
