"""Tiles cover an extent exactly once, whatever its size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kernels.schedules.tiles import Window, pieces, runs, spread

SIZES = st.integers(1, 200)


@given(SIZES, SIZES)
def test_spread_covers_with_at_most_two_neighbouring_sizes(extent: int, most: int) -> None:
    sizes = spread(extent, most)
    assert sum(sizes) == extent
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-extent // most)


@given(SIZES, st.sampled_from([1, 4, 8, 16]))
def test_pieces_are_contiguous_and_exact(columns: int, lanes: int) -> None:
    parts = pieces(columns, lanes)
    assert [offset for offset, _ in parts] == [sum(w for _, w in parts[:i]) for i in range(len(parts))]
    assert sum(width for _, width in parts) == columns
    assert all(width == lanes or width & (width - 1) == 0 for _, width in parts)


@given(
    st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(0, 6), st.integers(0, 6), SIZES
)
def test_runs_visit_each_output_once_and_each_tap_inside_the_image(
    width: int, kernel: int, stride: int, left: int, right: int, most: int
) -> None:
    left, right = min(left, kernel - 1), min(right, kernel - 1)
    if width + left + right < kernel:
        return
    out = (width + left + right - kernel) // stride + 1
    window = Window(
        batch=1,
        size=(1, 1, width),
        channels=1,
        out=(1, 1, out),
        kernel=(1, 1, kernel),
        stride=(1, 1, stride),
        padding=(0, 0, left),
    )
    seen: dict[int, list[int]] = {}
    for run in runs(window, most):
        for repeat in range(run.repeat):
            for row in range(run.rows):
                taps = [t for low, high, rows in run.segments if row in rows for t in range(low, high)]
                column = run.first + repeat * run.rows + row
                assert column not in seen
                seen[column] = taps
    expected = {
        column: [t for t in range(kernel) if 0 <= column * stride - left + t < width]
        for column in range(out)
    }
    assert seen == expected
