"""Views against NumPy: what is seen, and whether anything has to move for it."""

from __future__ import annotations

from functools import cache
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.graph.views import Shape, View
from tests.networks import Array


def seen(view: View, x: Array) -> Array:
    """What a view shows of a stored array, by its fewest moves."""
    stored, _, permute = view.runs
    return x.reshape(stored).transpose(permute).reshape(view.shape)


@cache
def shapes_of(elements: int) -> list[Shape]:
    """Shapes of that many elements, with extents of 1 between."""
    return [
        shape
        for rank in range(5)
        for shape in product(range(1, elements + 1), repeat=rank)
        if prod(shape) == elements
    ]


@given(st.data())
def test_chains_of_reshapings_and_transpositions_are_numpys(data: st.DataObject) -> None:
    elements = data.draw(st.sampled_from([1, 6, 12, 16]))
    shape = data.draw(st.sampled_from(shapes_of(elements)))
    x = np.arange(elements).reshape(shape)
    view, wanted = View.of(shape), x
    for _ in range(data.draw(st.integers(0, 5))):
        if data.draw(st.booleans()):
            permute = tuple(data.draw(st.permutations(range(wanted.ndim))))
            view, wanted = view.transposed(permute), wanted.transpose(permute)
        else:
            other = data.draw(st.sampled_from(shapes_of(elements)))
            cut = view.reshaped(other)
            if cut is None:
                assert elements > 1
                continue
            view, wanted = cut, wanted.reshape(other)
    assert view.shape == wanted.shape
    np.testing.assert_array_equal(seen(view, x), wanted)
    assert view.in_order == bool((wanted.ravel() == np.arange(elements)).all())
    whole = view.arrangement()
    if whole is not None:
        stored = tuple(view.shape[whole.index(axis)] for axis in range(len(whole)))
        np.testing.assert_array_equal(x.reshape(stored).transpose(whole), wanted)


@given(st.data())
def test_an_operand_is_laid_as_another_one(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4)))
    permute = tuple(data.draw(st.permutations(range(len(shape)))))
    stored = np.arange(prod(shape)).reshape(tuple(shape[axis] for axis in permute))
    back = tuple(int(axis) for axis in np.argsort(permute))
    view = View.of(stored.shape).transposed(back)
    assert view.shape == shape
    small = tuple(data.draw(st.sampled_from([1, extent])) for extent in shape)
    other = np.arange(prod(small)).reshape(small)
    laid = view.laid(View.of(small))
    assert laid is not None
    np.testing.assert_array_equal(
        np.broadcast_to(seen(laid, other), stored.shape).transpose(back), np.broadcast_to(other, shape)
    )


def test_a_merged_axis_is_not_repeated_in_part() -> None:
    rows = View.of((6, 5)).reshaped((2, 3, 5))
    assert rows is not None
    assert rows.laid(View.of((1, 3, 5))) is None
    assert rows.laid(View.of((5,))) is not None


@pytest.mark.parametrize(("groups", "moves"), [(3, 1), (1, 0)])
def test_a_channel_shuffle_of_nhwc_moves_channels_alone(groups: int, moves: int) -> None:
    view = View.of((1, 5, 7, 12)).transposed((0, 3, 1, 2))
    for step in ((1, groups, 12 // groups, 5, 7), (0, 2, 1, 3, 4), (1, 12, 5, 7)):
        turned = view.transposed(step) if 0 in step else view.reshaped(step)
        assert turned is not None
        view = turned
    view = view.transposed((0, 2, 3, 1))
    assert (not view.in_order) == bool(moves)
    if moves:
        assert view.runs == ((35, 3, 4), (35, 4, 3), (0, 2, 1))
