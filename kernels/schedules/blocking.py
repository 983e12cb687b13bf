"""The schedule of a contraction, and the analytical model that chooses it.

Registers, caches and latencies of the processor decide (Low, Igual, Smith, Quintana-Orti,
"Analytical modeling is enough for high-performance BLIS", ACM TOMS 43(2), 2016); what is
emitted from the schedule is in `kernels.schedules.contraction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Annotated

import msgspec

from kernels.errors import InputError
from kernels.schedules.tiles import Window, pieces, spread
from toolchains.target import CPU

CROWDING = 0.01
"""What a row costs that shares a set of the first level with half as many as it holds: measured
on products whose depth is a power of two."""
EQUAL = 1.02
"""Tiles whose estimated cycles differ by less are taken for equally fast."""
LEAST_ROWS = 64
"""Pixels of a block that reads weights from beyond the second level: fewer would wait for them."""


Tile = Annotated[int, msgspec.Meta(ge=1, le=512)]
Block = Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
Lines = Annotated[int, msgspec.Meta(ge=0, le=64)]
"""What a record may ask for: code grows with tiles and with lines that are prefetched."""


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

    mr: Tile
    nr: Tile
    ku: Tile
    unroll: Tile
    mc: Block
    kc: Block
    prefetch_image: Lines = 0
    prefetch_panel: Lines = 0
    prefetch_result: Lines = 0

    def suspends(self, window: Window) -> bool:
        """Whether sums of a block of channels wait in the result for those of the next."""
        return self.kc < window.channels


def choose(window: Window, columns: int, cpu: CPU) -> Contraction:
    """The schedule by an analytical model of registers, caches and latencies.

    The register tile is the one of least estimated cost, edges included (`_tile_cost`); the
    blocks follow from the sizes of the caches (`_depth`, `_height`).
    """
    ku = cpu.lanes if cpu.lane_operand else 1
    costs = {(mr, nr): _tile_cost(window, columns, (mr, nr, ku), cpu) for mr, nr in _fitting(columns, cpu)}
    if not costs:
        raise InputError("no register tile fits: the target's description has too few registers")
    least = min(cycles for cycles, _ in costs.values()) * (EQUAL if cpu.issue > 1 else 1)
    mr, nr = min(
        (tile for tile, (cycles, _) in costs.items() if cycles <= least), key=lambda tile: costs[tile][1]
    )
    kc = _depth(window, (mr, nr, ku), cpu)
    schedule = Contraction(
        mr=mr,
        nr=nr,
        ku=ku,
        unroll=max(1, min(cpu.unroll, kc * window.kernel[2] // ku)),
        mc=_height(window, columns, nr, cpu),
        kc=kc,
    )
    return _prefetching(window, columns, schedule, cpu) if cpu.prefetch else schedule


def _fitting(columns: int, cpu: CPU) -> Iterator[tuple[int, int]]:
    """Register tiles, mr x nr, that leave room for what else is in registers."""
    for vectors in range(1, cpu.vector_registers):
        nr = min(vectors * cpu.lanes, columns)
        widths = [width for width, _ in panels(columns, nr)]
        widest = max(_registers(width, cpu) for width in widths)
        mixed = any(len({part for _, part in pieces(width, cpu.lanes)}) > 1 for width in widths)
        for mr in range(1, cpu.vector_registers):
            others = _other_registers(mr, widest, cpu, mixed=mixed)
            if mr * widest + others > cpu.vector_registers:
                break
            yield mr, nr


def cycles(window: Window, columns: int, schedule: Contraction, cpu: CPU) -> float:
    """The model's estimate of all steps of a contraction; taps outside the image take none."""
    tile = schedule.mr, schedule.nr, schedule.ku
    line, _ = _tile_cost(window, columns, tile, cpu)
    steps = [
        sum(high - low for low, high in (window.taps(axis, place) for place in range(extent)))
        for axis, extent in enumerate(window.out)
    ]
    return window.batch * prod(steps) * window.channels * line / window.out[2]


def _registers(width: int, cpu: CPU) -> int:
    return sum(cpu.registers_of(part) for _, part in pieces(width, cpu.lanes))


def _tile_cost(window: Window, columns: int, tile: tuple[int, int, int], cpu: CPU) -> tuple[float, float]:
    """Cycles of all steps of the sum, and the instructions that they issue.

    A step over m x v vectors issues m v multiply-adds, m / ku + v loads and, shared by the
    steps of a round, two instructions of loop and what advances the rows' pointers. It takes
    no less than its multiply-adds take their units, nor than the latency of the chain
    through an accumulator: m v >= latency x units (Low, Igual, Smith, Quintana-Orti,
    "Analytical modeling is enough for high-performance BLIS", ACM TOMS 43(2), 2016, section
    3.1), nor than a row of the panel takes from the second level: at half its rate where it must
    be filled at the same time. Of equally fast ones the better issues less. Rows that crowd one
    set of the first level cost a little more each.
    """
    mr, nr, ku = tile
    far = 4 * window.terms * columns > cpu.l2.bytes
    rate = cpu.l2_stream / 2 if far else cpu.l2_stream
    cycles = issued = 0.0
    for rows, tiles in _counted(spread(window.out[2], mr)):
        for width, count in panels(columns, nr):
            parts = len(pieces(width, cpu.lanes))
            round_issue = 2 + (0 if cpu.indexed else rows)
            panel = parts / (2 if cpu.paired_loads else 1)
            issue = rows * parts + rows / ku + panel + round_issue / (ku * cpu.unroll)
            units = max(rows * parts, cpu.fma_latency * cpu.fma_per_cycle) / cpu.fma_per_cycle
            stream = 4 * width / rate if rate else 0.0
            cycles += tiles * count * max(issue / cpu.issue, units, stream)
            issued += tiles * count * issue
    crowded = max(0, _crowding(window, mr, cpu) - cpu.l1.ways // 2) if cpu.prefetch else 0
    return round(cycles * (1 + CROWDING * crowded), 6), issued


def _other_registers(mr: int, columns: int, cpu: CPU, *, mixed: bool) -> int:
    """Vector registers that a tile of `mr` rows and so many columns needs beside accumulators.

    The columns. Beside these none where scalars have a register file of their own; else the
    factor, a product that is yet to be added where that is another instruction, and what LLVM's
    allocator wants free. Where a multiply-add takes a lane as its operand, each row's factors
    stay in a register for `ku` steps; but with a single column LLVM keeps the columns of these
    steps instead, and goes through the rows.
    """
    if cpu.register_group > 1:
        return columns
    if cpu.memory_operand:
        return columns + cpu.spare_registers + (2 if mixed else 0)
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


def _height(window: Window, columns: int, nr: int, cpu: CPU) -> int:
    """Output pixels in a block: mc.

    All, if the image stays in the second level or is read for one panel alone, for then nothing
    is read twice from beyond it; without a third level, also if the panels stay there. Otherwise
    so many that their part of the image takes half of the second level (Low et al., section
    3.3); or a quarter where there is a third, for then panels that were asked for ahead wait in
    the second. Blocks are as equal as can be.
    """
    pixels = window.out[1] * window.out[2]
    image = 4 * prod(window.size) * window.channels
    half = cpu.l2.bytes // 2
    room = half // 2 if cpu.l3 else half
    near = not cpu.l3 and 4 * window.terms * columns <= half
    if image <= room or columns <= nr or near:
        return pixels
    most = pixels // LEAST_ROWS if cpu.l3 else pixels
    blocks = max(1, min(most, -(-image // room)))
    return -(-pixels // blocks)


def _prefetching(window: Window, columns: int, schedule: Contraction, cpu: CPU) -> Contraction:
    """What to prefetch: what is read or written but once, and does not stay in a near cache.

    The lines of the next panel are asked for while the tiles of this one compute: all of them,
    or half where there is one tile alone; a single row computes too little to hide that. Of
    pixels shorter than two lines the hardware asks for the next by itself. Rows
    of the image whose distance is a multiple of what one way of the first level holds displace
    one another there: then prefetching more of them does harm.
    """
    half = cpu.l2.bytes // 2
    image = 4 * prod(window.size) * window.channels
    weights = 4 * window.terms * columns
    result = 4 * prod(window.outputs) * columns
    _, lines, each = pixel_blocks(window, schedule)
    tiles = each or lines * len(spread(window.out[2], schedule.mr))
    hidden = schedule.mr > 1 and tiles <= 2 * schedule.nr
    panel = -(-schedule.nr // max(2, tiles)) if weights > half and hidden else 0
    long = 4 * window.channels * window.kernel[2] >= 2 * cpu.l1.line
    far = image > half and long and _crowding(window, 2 * schedule.mr, cpu) <= cpu.l1.ways - 2
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


def panels(columns: int, nr: int) -> list[tuple[int, int]]:
    """(width, count) of the panels: the full ones, then the narrower last one."""
    full, rest = divmod(columns, nr)
    return [part for part in ((nr, full), (rest, 1 if rest else 0)) if part[1]]


def pixel_blocks(window: Window, schedule: Contraction) -> tuple[int, int, int]:
    """How many blocks of pixels there are; how many lines, and tiles of a line, each takes.

    They are lines of an image, or tiles where there is one line alone; 0 stands for all.
    """
    tiles = len(spread(window.out[2], schedule.mr))
    if window.out[1] > 1:
        lines = max(1, min(window.out[1], schedule.mc // window.out[2]))
        return -(-window.out[1] // lines), lines, 0
    blocks = min(tiles, -(-window.out[2] // schedule.mc))
    each = -(-tiles // blocks)
    return -(-tiles // each), 0, each
