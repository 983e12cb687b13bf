"""Products summed over taps and channels: matrix products and convolutions.

The register tile holds `mr` output pixels by `nr` output columns, its accumulators stay
in registers over the whole sum, and the second operand is read from panels of `nr`
columns (Goto and Van de Geijn, ACM TOMS 34(3), 2008). Edge tiles are kernels of their
own with exact shapes.
"""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec

from kernels.plan import Tuned
from kernels.schedules.tiles import Run, Window, pieces, runs, spread
from toolchains.target import CPU

CROWDING = 0.01
"""What a row costs that shares a set of the first level with half as many as it holds: measured
on products whose depth is a power of two."""
FEWEST = 4
"""Fewer tiles could not prefetch a panel without being held up by it."""


class Contraction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The schedule: register tile `mr` x `nr`, cache blocks, prefetching.

    The loops, outermost first: over blocks of about `mc` output pixels; over panels of `nr`
    columns; over blocks of `kc` channels; over the tiles of the block of pixels. So what is
    read of a panel stays in a near cache while the tiles go by, and the pixels of a block
    stay in the second level while the panels do. `ku` channels are loaded at once, and a
    round of the innermost loop takes `unroll` times as many.

    Each round may prefetch a line of the image for each row of the tile after this one, and
    `prefetch_panel` lines of the next panel; each tile the lines of its result.
    """

    mr: int
    nr: int
    ku: int
    unroll: int
    mc: int
    kc: int
    prefetch_image: int = 0
    prefetch_panel: int = 0
    prefetch_result: int = 0


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """Where the first operand lies: its strides in elements."""

    batch: int
    depth: int = 0
    row: int = 0
    pixel: int
    channel: int = 1


def choose(window: Window, columns: int, cpu: CPU, tuned: Tuned | None = None) -> Contraction:
    """The schedule by an analytical model of registers, caches and latencies; or a tuned one.

    The register tile is the one of least estimated cost, edges included (`_tile_cost`); the
    blocks follow from the sizes of the caches (`_depth`, `_height`).
    """
    if tuned is not None:
        return msgspec.convert(tuned, Contraction)
    ku = cpu.lanes if cpu.lane_operand else 1
    best: tuple[tuple[float, float], int, int] | None = None
    for vectors in range(1, cpu.vector_registers):
        nr = min(vectors * cpu.lanes, columns)
        widths = [width for width, _ in _panels(columns, nr)]
        widest = max(_registers(width, cpu) for width in widths)
        mixed = any(len({part for _, part in pieces(width, cpu.lanes)}) > 1 for width in widths)
        for mr in range(1, cpu.vector_registers):
            others = _other_registers(mr, widest, cpu, mixed=mixed)
            if mr * widest + others > cpu.vector_registers:
                break
            cost = _tile_cost(window, columns, (mr, nr, ku), cpu)
            if best is None or cost < best[0]:
                best = cost, mr, nr
    if best is None:
        raise ValueError("no register tile fits: the CPU description has too few registers")
    _, mr, nr = best
    kc = _depth(window, (mr, nr, ku), cpu)
    schedule = Contraction(
        mr=mr,
        nr=nr,
        ku=ku,
        unroll=max(1, min(cpu.unroll, kc * window.kernel[2] // ku)),
        mc=_height(window, columns, cpu),
        kc=kc,
    )
    return _prefetching(window, columns, schedule, cpu) if cpu.prefetch else schedule


def _registers(width: int, cpu: CPU) -> int:
    return sum(cpu.registers_of(part) for _, part in pieces(width, cpu.lanes))


def _tile_cost(window: Window, columns: int, tile: tuple[int, int, int], cpu: CPU) -> tuple[float, float]:
    """Cycles of all steps of the sum; where they are equal, what else makes a tile better.

    A step over m x v vectors issues m v multiply-adds, m / ku + v loads and, shared by the
    steps of a round, two instructions of loop and what advances the rows' pointers. It takes
    no less than its multiply-adds take their units, nor than the latency of the chain
    through an accumulator: m v >= latency x units (Low, Igual, Smith, Quintana-Orti,
    "Analytical modeling is enough for high-performance BLIS", ACM TOMS 43(2), 2016, section
    3.1), nor than a row of the panel takes from the second level. Of equally fast ones the
    better issues less. Rows that crowd one set of the first level cost a little more each.
    """
    mr, nr, ku = tile
    cycles = issued = 0.0
    for rows, tiles in _counted(spread(window.out[2], mr)):
        for width, count in _panels(columns, nr):
            parts = len(pieces(width, cpu.lanes))
            round_issue = 2 + (0 if cpu.indexed else rows)
            panel = parts / (2 if cpu.paired_loads else 1)
            issue = rows * parts + rows / ku + panel + round_issue / (ku * cpu.unroll)
            units = max(rows * parts, cpu.fma_latency * cpu.fma_per_cycle) / cpu.fma_per_cycle
            stream = 4 * width / cpu.l2_stream if cpu.l2_stream else 0.0
            cycles += tiles * count * max(issue / cpu.issue, units, stream)
            issued += tiles * count * issue
    crowded = max(0, _crowding(window, mr, cpu) - cpu.l1.ways // 2) if cpu.prefetch else 0
    return round(cycles * (1 + CROWDING * crowded), 6), issued


def _other_registers(mr: int, columns: int, cpu: CPU, *, mixed: bool) -> int:
    """Vector registers that a tile of `mr` rows and so many columns needs beside accumulators.

    The columns. Beside these none where scalars have a register file of their own; one for
    the broadcast factor where it comes from memory, and one for a product that is yet to be
    added; else the factor and what LLVM's allocator wants free. Where a multiply-add takes a
    lane as its operand, each row's factors stay in a register for `ku` steps; but with a
    single column LLVM keeps the columns of these steps instead, and goes through the rows.
    """
    if cpu.register_group > 1:
        return columns
    if cpu.memory_operand:
        return columns + (1 if cpu.fma else 2) + (2 if mixed else 0)
    if cpu.lane_operand and columns == 1:
        return 2 + cpu.lanes
    return columns + cpu.spare_registers + (mr if cpu.lane_operand else 0)


def _depth(window: Window, tile: tuple[int, int, int], cpu: CPU) -> int:
    """Channels in a block: kc, so that its part of a panel takes half of the second level.

    There it stays while all tiles of a block of pixels read it, and half is left for what
    they bring (the reasoning of Low et al., section 3.2, one level further out: a panel is
    as wide as many vectors here, and streams from the second level without loss). Blocks
    are equal where that is possible, and whole multiples of `ku`. A panel that one tile
    alone reads need not stay.
    """
    mr, nr, ku = tile
    if prod(window.out) <= mr:
        return window.channels
    most = max(1, cpu.l2.bytes // 2 // (4 * nr * prod(window.kernel)))
    blocks = -(-window.channels // most)
    even = next((n for n in range(blocks, 2 * blocks) if window.channels % (n * ku) == 0), blocks)
    kc = -(-window.channels // even)
    return min(window.channels, -(-kc // ku) * ku)


def _height(window: Window, columns: int, cpu: CPU) -> int:
    """Output pixels in a block: mc.

    All, if the image or the panels stay in the second level, for then nothing is read twice
    from beyond it. Otherwise so many that their part of the image stays in the core's share
    of the third level, or takes half of the second where there is no third (Low et al.,
    section 3.3), while all panels go by.
    """
    pixels = window.out[1] * window.out[2]
    image = 4 * prod(window.size) * window.channels
    panels = 4 * window.terms * columns
    half = cpu.l2.bytes // 2
    room = cpu.l3.bytes if cpu.l3 else half
    if image <= max(half, room) or panels <= half:
        return pixels
    return max(1, int(pixels * room / image))


def _prefetching(window: Window, columns: int, schedule: Contraction, cpu: CPU) -> Contraction:
    """What to prefetch: what is read or written but once, and does not stay in a near cache.

    Rows of the image whose distance is a multiple of what one way of the first level holds
    displace one another there: then prefetching more of them does harm.
    """
    half = cpu.l2.bytes // 2
    image = 4 * prod(window.size) * window.channels
    panels = 4 * window.terms * columns
    result = 4 * prod(window.outputs) * columns
    _, lines, each = _blocks(window, schedule)
    tiles = each or lines * len(spread(window.out[2], schedule.mr))
    panel = -(-schedule.nr // tiles) if panels > half and FEWEST <= tiles <= 2 * schedule.nr else 0
    far = image > half and _crowding(window, 2 * schedule.mr, cpu) <= cpu.l1.ways - 2
    return msgspec.structs.replace(
        schedule,
        prefetch_image=int(far),
        prefetch_panel=panel,
        prefetch_result=int(result > cpu.l1.bytes),
    )


def _crowding(window: Window, rows: int, cpu: CPU) -> int:
    """How many of so many neighbouring pixels begin in one set of the first level, at most."""
    sets = cpu.l1.bytes // (cpu.l1.ways * cpu.l1.line)
    stride = 4 * window.stride[2] * window.channels
    places = [row * stride // cpu.l1.line % sets for row in range(rows)]
    return max(map(places.count, places))


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
    rows = runs(window, schedule.mr)
    count, lines, tiles = _blocks(window, schedule)
    full, rest = divmod(window.channels, schedule.kc)
    in_line = sum(run.repeat for run in rows)
    with b.loop(0, window.batch) as batch, b.loop(0, window.out[0]) as sheet, b.loop(0, count) as block:
        column = 0
        for width, panels in _panels(product.columns, schedule.nr):
            with b.loop(0, panels) as number:
                for first, extent, repeat in ((0, schedule.kc, full), (full * schedule.kc, rest, 1)):
                    if extent == 0 or repeat == 0:
                        continue
                    part = _part(b, block, lines, count, (0, window.out[1]))
                    with b.loop(0, repeat) as depth, b.loop(*part) as line:
                        begin = 0
                        for run in rows:
                            span = (begin, begin + run.repeat)
                            begin = span[1]
                            before = (line - part[0]) * in_line if lines else -(block * tiles)
                            with b.loop(*_part(b, block, tiles, count, span)) as tile:
                                _emit_tile(
                                    b,
                                    product,
                                    Tile(
                                        batch=batch,
                                        line=(sheet, line),
                                        first=(tile - span[0]) * run.rows + run.first,
                                        run=run,
                                        column=number * width + column,
                                        width=width,
                                        channel=depth * extent + first,
                                        channels=extent,
                                        ordinal=before + tile,
                                    ),
                                )
            column += panels * width


def _blocks(window: Window, schedule: Contraction) -> tuple[int, int, int]:
    """How many blocks of pixels there are; how many lines, and tiles of a line, each takes.

    They are lines of an image, or tiles where there is one line alone; 0 stands for all.
    """
    tiles = len(spread(window.out[2], schedule.mr))
    if window.out[1] > 1:
        lines = max(1, min(window.out[1], schedule.mc // window.out[2]))
        return -(-window.out[1] // lines), lines, 0
    each = max(1, min(tiles, schedule.mc // schedule.mr))
    return -(-tiles // each), 0, each


def _part(b: Any, block: Any, each: int, count: int, span: tuple[int, int]) -> tuple[Any, Any]:
    """What part of a span of lines or tiles lies in a block of `each`."""
    if count == 1 or each == 0:
        return span
    low = block * each
    return b.maximum(low, span[0]), b.minimum(low + each, span[1])


def _emit_tile(b: Any, product: Product, tile: Tile) -> None:
    window, image = product.window, product.image
    vectors = pieces(tile.width, b.cpu.lanes)
    accumulators = b.registers([width for _ in range(tile.run.rows) for _, width in vectors])
    if product.schedule.prefetch_result:
        lines = [(offset, 1) for offset in range(0, tile.width, b.cpu.l1.line // 4)]
        for place, _ in _places(product, tile, lines):
            b.prefetch(product.y, place, write=True)
    _begin_tile(b, product, tile, accumulators)
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
        _line_of_taps(b, product, tile, accumulators, origin, depth * in_all[2] * window.channels)
    _end_tile(b, product, tile, accumulators)


def _begin_tile(b: Any, product: Product, tile: Tile, accumulators: Any) -> None:
    """Zero the accumulators, or go on with the sums of earlier blocks of channels."""
    vectors = pieces(tile.width, b.cpu.lanes)

    def begin() -> None:
        for number, (_, width) in enumerate(vectors * tile.run.rows):
            accumulators[number] = b.constant(0.0, width)

    def resume() -> None:
        for number, (place, width) in enumerate(_places(product, tile, vectors)):
            accumulators[number] = b.load(product.y, place, width)

    if tile.channels == product.window.channels:
        begin()
    else:
        b.either(b.index(tile.channel) == 0, begin, resume)


def _end_tile(b: Any, product: Product, tile: Tile, accumulators: Any) -> None:
    """Finish the tile, or leave its sums in the result for the next block of channels."""
    vectors = pieces(tile.width, b.cpu.lanes)

    def suspend() -> None:
        for number, (place, _) in enumerate(_places(product, tile, vectors)):
            b.store(product.y, place, accumulators[number])

    def finish() -> None:
        _finish_tile(b, product, tile, accumulators)

    channels = product.window.channels
    if tile.channels == channels:
        finish()
    else:
        b.either(b.index(tile.channel) + tile.channels == channels, finish, suspend)


def _places(product: Product, tile: Tile, vectors: list[tuple[int, int]]) -> list[tuple[Any, int]]:
    """Where each vector of a tile lies in the result, and its width."""
    columns = product.y_columns or product.columns
    found = []
    for row in range(tile.run.rows):
        pixel = product.window.pixel(tile.batch, (*tile.line, tile.first + row))
        for offset, width in vectors:
            found.append((pixel * columns + product.y_offset + tile.column + offset, width))
    return found


def _line_of_taps(b: Any, product: Product, tile: Tile, accumulators: Any, origin: Any, depth: Any) -> None:
    """The terms of one line of taps. `origin` is under tap 0 of the tile's first pixel.

    Taps and channels are one loop where they lie one after the other in both operands.
    """
    window, image = product.window, product.image
    channels = window.channels
    joined = (
        window.dilation[2] == window.tap_step[2] == 1
        and image.pixel == channels == tile.channels
        and image.channel == 1
    )
    for low, high, rows in tile.run.segments:
        if joined:
            first = depth + window.tap_first[2] * channels
            _terms(b, product, tile, accumulators, rows, (origin, first), (low * channels, high * channels))
            continue
        with b.loop(low, high) as tap:
            there = origin + tap * (window.dilation[2] * image.pixel)
            weights = depth + (tap * window.tap_step[2] + window.tap_first[2]) * channels
            start = (there + tile.channel * image.channel, weights + tile.channel)
            _terms(b, product, tile, accumulators, rows, start, (0, tile.channels))


def _prefetch(b: Any, product: Product, tile: Tile, rows: tuple[int, ...], place: tuple[Any, Any]) -> None:
    """What a round prefetches; `place` is where it reads the image, and its first term.

    Lines of the next panel are spread evenly over the rounds of all tiles that read this one.
    """
    window, schedule = product.window, product.schedule
    if schedule.prefetch_image:
        stride = window.stride[2] * product.image.pixel
        for row in rows:
            b.prefetch(product.x, place[0] + (row + tile.run.rows) * stride)
    if schedule.prefetch_panel and product.packed:
        panel = product.w_offset + tile.batch * product.w_batch + (tile.column + tile.width) * window.terms
        line = b.cpu.l1.line // 4
        first = (tile.ordinal * window.terms + place[1]) * schedule.prefetch_panel
        for number in range(schedule.prefetch_panel):
            b.prefetch(product.w, panel + first + number * line)


def _terms(
    b: Any,
    product: Product,
    tile: Tile,
    accumulators: Any,
    rows: tuple[int, ...],
    start: tuple[Any, Any],
    span: tuple[int, int],
) -> None:
    """Terms `span` of a line, in rounds of `unroll` steps of `ku`, then in steps, then singly.

    With prefetching, the rounds that read one line of the cache of each row go together.
    """
    begin, end = span
    schedule = product.schedule
    ku = schedule.ku if product.image.channel == 1 else 1
    line = b.cpu.l1.line // 4
    whole = schedule.unroll * ku
    if (schedule.prefetch_image or schedule.prefetch_panel) and line % whole == 0 and end - begin >= line:
        lines = (end - begin) // line
        with b.loop(0, lines) as number:
            first = number * line + begin
            place = (start[0] + first * product.image.channel, start[1] + first)
            _prefetch(b, product, tile, rows, place)
            with b.loop(0, line // whole) as part:
                _round(
                    b, product, tile, accumulators, rows, start, first + part * whole, (schedule.unroll, ku)
                )
        begin += lines * line
    for steps, at_once in ((schedule.unroll, ku), (1, ku), (1, 1)):
        rounds = (end - begin) // (steps * at_once)
        if rounds:
            with b.loop(0, rounds) as number:
                first = number * (steps * at_once) + begin
                _round(b, product, tile, accumulators, rows, start, first, (steps, at_once))
            begin += rounds * steps * at_once


def _round(
    b: Any,
    product: Product,
    tile: Tile,
    accumulators: Any,
    rows: tuple[int, ...],
    start: tuple[Any, Any],
    first: Any,
    extent: tuple[int, int],
) -> None:
    """So many steps of so many terms at once, from term `first` of a line on."""
    steps, at_once = extent
    for step in range(steps):
        _step(b, product, tile, accumulators, rows, *start, first + step * at_once, at_once)


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
        for row, loaded in zip(rows, factors, strict=True):
            scalar = b.lane(loaded, unroll)
            for number, (_, width) in enumerate(vectors):
                place = row * len(vectors) + number
                factor = b.splat(scalar, width)
                accumulators[place] = b.fma(factor, weights[number], accumulators[place])


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
