"""Is the star reduction the sum in rank order, bit for bit, and nothing else?

Covers: coordinator/ranks/reduction.py. Does not cover: in which order parts arrive (coordinator/ranks/ranks.py
collects by rank).
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ShapeError
from common.weights.stored_numbers import Floats
from coordinator.ranks.reduction import reduce_partials


def partials_of(rank_count: int, rows: int, columns: int, seed: int) -> list[Floats]:
    """Return partial sums whose sizes differ so much that the order of addition shows."""
    generator = np.random.default_rng(seed)
    scales = np.array([1.0, 1e4, 1e-4, 3e7], np.float32)
    return [
        generator.standard_normal((rows, columns), np.float32) * scales[rank % len(scales)]
        for rank in range(rank_count)
    ]


@given(ranks=st.integers(1, 12), rows=st.integers(1, 4), columns=st.integers(1, 70), seed=st.integers(0, 10_000))
def test_the_result_is_the_sequential_sum_bit_for_bit(ranks: int, rows: int, columns: int, seed: int) -> None:
    """Rank 0 first, one float32 addition after another, as numpy adds them."""
    partials = partials_of(ranks, rows, columns, seed)
    expected = functools.reduce(np.add, partials)
    assert reduce_partials(partials).tobytes() == expected.tobytes()


@given(ranks=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_inputs_stay_as_they_were_and_the_result_is_new(ranks: int, seed: int) -> None:
    """The residual stream is added to the result in place: that must never reach a partial sum."""
    partials = partials_of(ranks, 2, 5, seed)
    copies = [partial.copy() for partial in partials]
    reduce_partials(partials).fill(7)
    assert all(np.array_equal(a, b) for a, b in zip(partials, copies, strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_result_over_constant_bytes_can_be_written(ranks: int) -> None:
    """Partial sums of a prompt lie over bytes that must never change; late biases are added to their sum in place."""
    received = [np.arange(1 << 15, dtype=np.float32).tobytes() for _ in range(ranks)]
    before = [bytes(bytearray(data)) for data in received]
    partials = [np.frombuffer(data, np.float32).reshape(2, -1) for data in received]
    total = reduce_partials(partials)
    total += 1
    assert received == before


def test_the_order_matters_which_is_why_it_is_fixed() -> None:
    """Float addition is not associative: the orders of four partial sums give more than one result."""
    partials = partials_of(4, 1, 64, seed=3)
    results = {reduce_partials(order).tobytes() for order in itertools.permutations(partials)}
    assert len(results) > 1


@pytest.mark.parametrize(
    "partials",
    [
        [],
        [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32)],
        [np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32)],
        [np.zeros((2, 3), np.float32), np.zeros(3, np.float32)],
        [np.zeros((2, 3), np.float64)],
        [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint16)],
    ],
    ids=["none", "transposed", "broadcastable", "flat", "float64", "mixed"],
)
def test_what_does_not_fit_together_is_refused(partials: list[Floats]) -> None:
    """Nothing is broadcast or widened silently."""
    with pytest.raises(ShapeError):
        reduce_partials(partials)
