"""Products summed over taps and channels: matrix products and convolutions.

The register tile holds `mr` output pixels by `nr` output columns, its accumulators stay
in registers over the whole sum, and the second operand is read from panels of `nr`
columns (Goto and Van de Geijn, ACM TOMS 34(3), 2008). Edge tiles are kernels of their
own with exact shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import msgspec

from kernels.schedules.tiles import Run, Window, pieces, runs, spread
from toolchains.target import CPU


class Contraction(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule: register tile `mr` x `nr`, `ku` channels loaded at once, outer loop."""

    mr: int
    nr: int
    ku: int
    outer: Literal["panels", "pixels"]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """Where the first operand lies: its strides in elements."""

    batch: int
    depth: int = 0
    row: int = 0
    pixel: int
    channel: int = 1


def choose(window: Window, columns: int, cpu: CPU) -> Contraction:
    """The register tile of least estimated cost, edges included, and the outer loop.

    A step of the sum over a tile of m x v vectors issues m * v multiply-adds, m + v loads
    and about two instructions of loop; it takes no less than the latency of the chain
    through an accumulator (Low, Igual, Smith, Quintana-Orti, "Analytical modeling is
    enough for high-performance BLIS", ACM TOMS 43(2), 2016, section 3.1). The tile must
    fit in the registers: m * v accumulators, v columns, and what the factors need.
    """
    ku = cpu.lanes if cpu.lane_operand else 1
    best: tuple[float, Contraction] | None = None
    for vectors in range(1, cpu.vector_registers):
        nr = min(vectors * cpu.lanes, columns)
        widths = [(pieces(width, cpu.lanes), count) for width, count in _panels(columns, nr)]
        panels = [(len(parts), count) for parts, count in widths]
        widest = max(sum(cpu.registers_of(width) for _, width in parts) for parts, _ in widths)
        for mr in range(1, cpu.vector_registers):
            if mr * widest + widest + _other_registers(mr, cpu) > cpu.vector_registers:
                break
            cost = 0.0
            for rows, tiles in _counted(spread(window.out[2], mr)):
                for parts, count in panels:
                    issue = rows * parts + rows / ku + parts + 2
                    chain = cpu.fma_latency * cpu.fma_per_cycle
                    cost += tiles * count * max(issue, chain)
            if best is None or cost < best[0] * (1 - 1e-9):
                best = cost, Contraction(mr=mr, nr=nr, ku=ku, outer="panels")
    if best is None:
        raise ValueError("no register tile fits: the CPU description has too few registers")
    chosen = best[1]
    return msgspec.structs.replace(chosen, outer=_outer(window, columns, chosen, cpu))


def _other_registers(mr: int, cpu: CPU) -> int:
    """Vector registers that a tile of `mr` rows needs beside accumulators and columns.

    None where scalars have a register file of their own; one for the broadcast factor
    where it comes from memory, and one for a product that is yet to be added; else one
    more that LLVM's allocator wants free. Where a multiply-add takes a lane as its
    operand, each row's factors stay in one for `ku` steps, and the allocator wants two.
    """
    if cpu.register_group > 1:
        return 0
    if cpu.memory_operand:
        return 1 if cpu.fma else 2
    return 2 + (mr if cpu.lane_operand else 0)


def _outer(window: Window, columns: int, tile: Contraction, cpu: CPU) -> Literal["panels", "pixels"]:
    """The outer loop that brings fewer bytes past the second-level cache.

    Panels outside read the image once for each panel unless it stays in that cache;
    pixels outside read all the panels once for each tile likewise.
    """
    image = 4 * window.batch * prod(window.size) * window.channels
    weights = 4 * window.terms * columns
    panels = -(-columns // tile.nr)
    tiles = window.batch * prod(window.out[:2]) * len(spread(window.out[2], tile.mr))
    half = cpu.l2.bytes // 2
    by_panels = weights + image * (panels if image > half else 1)
    by_pixels = image + weights * (tiles if weights > half else 1)
    return "panels" if by_panels <= by_pixels else "pixels"


def _counted(sizes: list[int]) -> list[tuple[int, int]]:
    return [(size, sizes.count(size)) for size in sorted(set(sizes))]


def _panels(columns: int, nr: int) -> list[tuple[int, int]]:
    """(width, count) of the panels: the full ones, then the narrower last one."""
    full, rest = divmod(columns, nr)
    return [part for part in ((nr, full), (rest, 1 if rest else 0)) if part[1]]


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
    """One register tile: output columns of one line of pixels by columns of one panel."""

    batch: Any
    line: tuple[Any, Any]
    first: Any
    run: Run
    column: Any
    width: int


def emit(b: Any, product: Product) -> None:
    """Emit the loops over panels and tiles of pixels, in the schedule's order."""
    window = product.window
    rows = runs(window, product.schedule.mr)

    def over_pixels(body: Callable[..., None]) -> None:
        with (
            b.loop(0, window.batch) as batch,
            b.loop(0, window.out[0]) as sheet,
            b.loop(0, window.out[1]) as line,
        ):
            for run in rows:
                with b.loop(0, run.repeat) as number:
                    body(batch=batch, line=(sheet, line), run=run, first=number * run.rows + run.first)

    def over_panels(body: Callable[..., None]) -> None:
        column = 0
        for width, count in _panels(product.columns, product.schedule.nr):
            with b.loop(0, count) as number:
                body(column=number * width + column, width=width)
            column += count * width

    if product.schedule.outer == "panels":
        over_panels(
            lambda **panel: over_pixels(lambda **pixels: _emit_tile(b, product, Tile(**panel, **pixels)))
        )
    else:
        over_pixels(
            lambda **pixels: over_panels(lambda **panel: _emit_tile(b, product, Tile(**panel, **pixels)))
        )


def _emit_tile(b: Any, product: Product, tile: Tile) -> None:
    window, image = product.window, product.image
    vectors = pieces(tile.width, b.cpu.lanes)
    widths = [width for _ in range(tile.run.rows) for _, width in vectors]
    accumulators = b.registers(widths)
    for number, width in enumerate(widths):
        accumulators[number] = b.constant(0.0, width)

    in_all = window.taps_in_all or window.kernel
    sheets, lines = (inner_taps(b, window, axis, tile.line[axis]) for axis in (0, 1))
    with b.loop(*sheets) as sheet_tap, b.loop(*lines) as line_tap:
        origin = product.x_offset + tile.batch * image.batch
        depth: Any = 0
        for axis, tap, stride in ((0, sheet_tap, image.depth), (1, line_tap, image.row)):
            at = tile.line[axis] * window.stride[axis] - window.padding[axis]
            origin = origin + (at + tap * window.dilation[axis]) * stride
            depth = depth * in_all[axis] + tap * window.tap_step[axis] + window.tap_first[axis]
        origin = origin + (tile.first * window.stride[2] - window.padding[2]) * image.pixel
        _line_of_taps(b, product, tile, accumulators, origin, depth * in_all[2] * window.channels)
    _finish_tile(b, product, tile, accumulators)


def _line_of_taps(b: Any, product: Product, tile: Tile, accumulators: Any, origin: Any, depth: Any) -> None:
    """The terms of one line of taps. `origin` is under tap 0 of the tile's first pixel.

    Taps and channels are one loop where they lie one after the other in both operands.
    """
    window, image = product.window, product.image
    channels = window.channels
    joined = (
        window.dilation[2] == window.tap_step[2] == 1 and image.pixel == channels and image.channel == 1
    )
    for low, high, rows in tile.run.segments:
        if joined:
            first = depth + window.tap_first[2] * channels
            _terms(b, product, tile, accumulators, rows, (origin, first), (low * channels, high * channels))
            continue
        with b.loop(low, high) as tap:
            there = origin + tap * (window.dilation[2] * image.pixel)
            weights = depth + (tap * window.tap_step[2] + window.tap_first[2]) * channels
            _terms(b, product, tile, accumulators, rows, (there, weights), (0, channels))


def _terms(
    b: Any,
    product: Product,
    tile: Tile,
    accumulators: Any,
    rows: tuple[int, ...],
    start: tuple[Any, Any],
    span: tuple[int, int],
) -> None:
    """Terms `span` of a line, `ku` at a time as long as there are as many."""
    begin, end = span
    ku = product.schedule.ku if product.image.channel == 1 else 1
    whole = (end - begin) // ku
    if whole:
        with b.loop(0, whole) as q:
            _step(b, product, tile, accumulators, rows, *start, q * ku + begin, ku)
    if begin + whole * ku < end:
        with b.loop(begin + whole * ku, end) as q:
            _step(b, product, tile, accumulators, rows, *start, q, 1)


def _finish_tile(b: Any, product: Product, tile: Tile, accumulators: Any) -> None:
    """Apply the epilogue and store; a heavy one in a loop over rows, to be there but once."""
    window = product.window
    vectors = pieces(tile.width, b.cpu.lanes)
    heavy = product.epilogue.heavy
    columns = product.y_columns or product.columns

    def pixel(row: Any) -> Any:
        return window.pixel(tile.batch, (*tile.line, tile.first + row))

    for row in range(tile.run.rows):
        for number, (offset, _) in enumerate(vectors):
            column = product.y_offset + tile.column + offset
            value = accumulators[row * len(vectors) + number]
            value = value if heavy else product.epilogue(value, pixel(row), column)
            b.store(product.y, pixel(row) * columns + column, value)
    if heavy:
        with b.loop(0, tile.run.rows) as row:
            for offset, width in vectors:
                column = product.y_offset + tile.column + offset
                place = pixel(row) * columns + column
                value = product.epilogue(b.load(product.y, place, width), pixel(row), column)
                b.store(product.y, place, value)


def _step(
    b: Any,
    product: Product,
    tile: Tile,
    accumulators: Any,
    rows: tuple[int, ...],
    origin: Any,
    depth: Any,
    q: Any,
    ku: int,
) -> None:
    """`ku` terms of the sum, from tap and channel `q` of a line of taps on.

    `origin` is the image's element under the line's first tap for the tile's first pixel,
    and `depth` the number of terms before the line.
    """
    window, image = product.window, product.image
    vectors = pieces(tile.width, b.cpu.lanes)
    start = product.w_offset + tile.batch * product.w_batch
    start = start + (tile.column * window.terms if product.packed else tile.column)
    stride = tile.width if product.packed else product.columns
    factors = [
        b.load(product.x, origin + row * (window.stride[2] * image.pixel) + q * image.channel, ku)
        for row in rows
    ]
    for unroll in range(ku):
        weights = [
            b.load(product.w, start + (depth + q + unroll) * stride + offset, width)
            for offset, width in vectors
        ]
        for row, factor in zip(rows, factors, strict=True):
            scalar = b.lane(factor, unroll)
            for number, (_, width) in enumerate(vectors):
                place = row * len(vectors) + number
                accumulators[place] = b.fma(b.splat(scalar, width), weights[number], accumulators[place])


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
    column = 0
    for width, count in _panels(columns, nr):
        with b.loop(0, count) as number, b.loop(0, depth) as q, b.loop(0, width) as lane:
            place = number * width + column
            value = b.load(source, first + q * strides[0] + (place + lane) * strides[1], 1)
            b.store(target, first + place * depth + q * width + lane, value)
        column += count * width
