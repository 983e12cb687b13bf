"""Products summed over taps and channels: matrix products and convolutions.

The register tile holds `mr` output pixels by `nr` output columns, its accumulators stay
in registers over the whole sum, and the second operand is read from panels of `nr`
columns (Goto and Van de Geijn, ACM TOMS 34(3), 2008). Edge tiles are kernels of their
own with exact shapes.
"""

from __future__ import annotations

from collections.abc import Callable
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
    row: int
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
            for rows, tiles in _counted(spread(window.out_w, mr)):
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
    where it comes from memory; else one more that LLVM's allocator wants free. Where a
    multiply-add takes a lane as its operand, each row's factors stay in one for `ku`
    steps, and the allocator wants two.
    """
    if cpu.register_group > 1:
        return 0
    if cpu.memory_operand:
        return 1
    return 2 + (mr if cpu.lane_operand else 0)


def _outer(window: Window, columns: int, tile: Contraction, cpu: CPU) -> Literal["panels", "pixels"]:
    """The outer loop that brings fewer bytes past the second-level cache.

    Panels outside read the image once for each panel unless it stays in that cache;
    pixels outside read all the panels once for each tile likewise.
    """
    image = 4 * window.batch * window.in_h * window.in_w * window.channels
    weights = 4 * window.kernel[0] * window.kernel[1] * window.channels * columns
    panels = -(-columns // tile.nr)
    tiles = window.batch * window.out_h * len(spread(window.out_w, tile.mr))
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

    `w` is in panels of `nr` columns, or a row-major matrix where not `packed`.
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


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One register tile: output columns of one line of pixels by columns of one panel."""

    batch: Any
    line: Any
    first: Any
    run: Run
    column: Any
    width: int


def emit(b: Any, product: Product) -> None:
    """Emit the loops over panels and tiles of pixels, in the schedule's order."""
    window = product.window
    rows = runs(window, product.schedule.mr)

    def over_pixels(body: Callable[..., None]) -> None:
        with b.loop(0, window.batch) as batch, b.loop(0, window.out_h) as line:
            for run in rows:
                with b.loop(0, run.repeat) as number:
                    body(batch=batch, line=line, run=run, first=number * run.rows + run.first)

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

    low, high = vertical_taps(b, window, tile.line)
    with b.loop(low, high) as tap:
        height = tile.line * window.stride[0] + tap - window.top
        pixel = tile.first * window.stride[1] - window.left
        origin = tile.batch * image.batch + height * image.row + pixel * image.pixel
        depth = tap * (window.kernel[1] * window.channels)
        for tap_low, tap_high, rows in tile.run.segments:
            begin, end = tap_low * window.channels, tap_high * window.channels
            ku = product.schedule.ku if image.channel == 1 else 1
            whole = (end - begin) // ku
            if whole:
                with b.loop(0, whole) as q:
                    _step(b, product, tile, accumulators, rows, origin, depth, q * ku + begin, ku)
            if begin + whole * ku < end:
                with b.loop(begin + whole * ku, end) as q:
                    _step(b, product, tile, accumulators, rows, origin, depth, q, 1)

    _finish_tile(b, product, tile, accumulators)


def _finish_tile(b: Any, product: Product, tile: Tile, accumulators: Any) -> None:
    """Apply the epilogue and store; a heavy one in a loop over rows, to be there but once."""
    window = product.window
    vectors = pieces(tile.width, b.cpu.lanes)
    first = (tile.batch * window.out_h + tile.line) * window.out_w + tile.first
    heavy = product.epilogue.heavy
    for row in range(tile.run.rows):
        for number, (offset, _) in enumerate(vectors):
            column = tile.column + offset
            value = accumulators[row * len(vectors) + number]
            value = value if heavy else product.epilogue(value, first + row, column)
            b.store(product.y, (first + row) * product.columns + column, value)
    if heavy:
        with b.loop(0, tile.run.rows) as row:
            for offset, width in vectors:
                column = tile.column + offset
                place = (first + row) * product.columns + column
                value = product.epilogue(b.load(product.y, place, width), first + row, column)
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
    terms = window.kernel[0] * window.kernel[1] * window.channels
    start = tile.column * terms if product.packed else tile.column
    stride = tile.width if product.packed else product.columns
    factors = [
        b.load(product.x, origin + row * window.stride[1] * image.pixel + q * image.channel, ku)
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


def vertical_taps(b: Any, window: Window, line: Any) -> tuple[Any, Any]:
    """The range of vertical taps inside the image for an output line."""
    start = line * window.stride[0] - window.top
    bottom = (window.out_h - 1) * window.stride[0] - window.top + window.kernel[0]
    low = b.maximum(0, 0 - start) if window.top else 0
    high = b.minimum(window.kernel[0], window.in_h - start) if bottom > window.in_h else window.kernel[0]
    return low, high


def emit_packing(
    b: Any, source: Any, target: Any, depth: int, columns: int, nr: int, strides: tuple[int, int]
) -> None:
    """Copy a matrix of `depth` x `columns` with the given strides into panels of `nr`."""
    column = 0
    for width, count in _panels(columns, nr):
        with b.loop(0, count) as number, b.loop(0, depth) as q, b.loop(0, width) as lane:
            place = number * width + column
            value = b.load(source, q * strides[0] + (place + lane) * strides[1], 1)
            b.store(target, place * depth + q * width + lane, value)
        column += count * width
