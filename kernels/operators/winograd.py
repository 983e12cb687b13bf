"""A convolution by Winograd's algorithm: where it suits, and how far it may be from the sum.

Its error is larger than that of the direct sum: whoever switches it on trades accuracy for
speed, within the bound stated here.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from kernels.operators.base import Array, Epilogue, Estimate, Planned, Scheduler
from kernels.plan import Kernel, Packing
from kernels.schedules import winograd
from kernels.schedules.tiles import Window
from kernels.schedules.tiling import Winograd, choose, places
from kernels.winograd import TAPS, TRANSFORMS, Matrix, along


def suits(window: Window) -> bool:
    """Whether the window is 3 x 3 and moves by single pixels over images of two dimensions."""
    return (
        window.size[0] == 1
        and window.kernel == (1, TAPS, TAPS)
        and window.stride == window.dilation == (1, 1, 1)
    )


def planned(window: Window, filters: int, by: Scheduler) -> Planned | None:
    """The algorithm's plan, where it is allowed, can compute this, and pays."""
    if not (by.winograd and suits(window)):
        return None
    if by.tuned_winograd is not None:
        schedule = msgspec.convert(by.tuned_winograd, Winograd)
    else:
        found = choose(window, filters, by.cpu)
        if found is None:
            return None
        schedule = found
    packing = Packing(
        permute=(1, 2, 3, 0),
        rows=window.channels,
        columns=filters,
        panel=schedule.nr,
        groups=1,
        winograd=schedule.m,
    )
    return Planned(
        schedule=schedule,
        packing={"w": packing},
        arena_bytes=4 * places(window, schedule, by.cpu.lanes).end,
    )


def emit(b: Any, kernel: Kernel, window: Window, epilogue: Epilogue) -> None:
    """Emit the body of a kernel that was planned so."""
    winograd.emit(
        b,
        winograd.Task(
            window=window,
            columns=kernel.output.shape[-1],
            schedule=msgspec.convert(kernel.schedule, Winograd),
            x=b.buffers["x"],
            w=b.buffers["w"],
            y=b.buffers["y"],
            arena=b.buffers["arena"],
            epilogue=epilogue,
        ),
    )


def estimate(window: Window, value: Array, x: Array, w: Array, m: int) -> Estimate:
    """The bound of F(m x m, 3 x 3) on the exact result `value` of x (NHWC) and w (OHWI).

    Each rounding is relative to |A^T| (sum over channels of |G| |g| |G^T| * |B^T| |d| |B|) |A|,
    and a result's terms pass those of the three transforms and of the sum over channels
    (Barabasz, Anderson, Soodhalter and Gregg, "Error analysis and improving the accuracy of
    Winograd convolution for deep neural networks", ACM TOMS 46(4), 2020, element by element). The
    transform of weights, in float64, is rounded once.
    """
    side = m + TAPS - 1
    transforms = TRANSFORMS[m]
    lines, columns = (-(-extent // m) for extent in window.out[1:])
    (top, left), (height, width) = window.padding[1:], window.size[1:]
    padded = np.zeros((window.batch, lines * m + TAPS - 1, columns * m + TAPS - 1, window.channels))
    # The last line or column of an image may be under no window of the padded one.
    rows, places = (
        min(e, p - b) for e, p, b in zip((height, width), padded.shape[1:3], (top, left), strict=True)
    )
    padded[:, top : top + rows, left : left + places] = np.abs(x[:, :rows, :places])
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))[:, ::m, ::m]
    data = along(_abs(transforms.data), along(_abs(transforms.data), tiles, -2), -1)
    taps = along(_abs(transforms.weights), along(_abs(transforms.weights), np.abs(w), 1), 2)
    # [side, side, tiles, channels] times [side, side, channels, filters]
    flat = data.transpose(4, 5, 0, 1, 2, 3).reshape(side, side, -1, window.channels)
    sums = flat @ taps.transpose(1, 2, 3, 0)
    found = along(_abs(transforms.results), along(_abs(transforms.results), sums, 0), 1)
    image = found.reshape(m, m, window.batch, lines, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    whole = image.reshape(window.batch, lines * m, columns * m, -1)
    return Estimate(
        value=value,
        magnitude=whole[:, : window.out[1], : window.out[2]],
        roundings=window.channels + 2 + transforms.roundings,
    )


def _abs(matrix: Matrix) -> Matrix:
    return tuple(tuple(map(abs, row)) for row in matrix)
