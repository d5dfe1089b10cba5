"""Is every product right, and the same to the bit however it is computed?

Covers: the native kernels of each instruction set that this processor has, all shapes, row counts and thread counts.
Does not cover: who computes which product (tests/unit/test_matmul.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute import matmul
from common.compute.matmul import kernels
from common.native.address import address
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, Stored, narrowed, widened

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason)

DTYPES = tuple(NUMPY_DTYPES)
ROUNDING = 2.0**-24
"""Of one float32 operation, relative."""


@pytest.fixture(params=kernels.variants, scope="module")
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set in turn."""
    kernels.choose(request.param)
    yield request.param
    kernels.choose(kernels.variant)


def random(*shape: int, seed: int) -> Floats:
    """Return float32 noise of very different sizes."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal(shape, np.float32) * np.float32(10) ** generator.integers(-3, 3, shape).astype(
        "f4"
    )


def product_of(rows: Floats, weight: Stored, thread_count: int = 1) -> Floats:
    """Return the kernels' product."""
    kernels.set_thread_count(thread_count, least_bytes=0)
    try:
        return matmul.multiply(rows, weight)
    finally:
        kernels.set_thread_count(1)


@given(
    depth=st.integers(0, 50), width=st.integers(0, 100), row_count=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=150)
def test_a_product_is_as_exact_as_float32_sums_are(
    variant: str, depth: int, width: int, row_count: int, dtype: str, seed: int
) -> None:
    """Against float64, within the bound of a sum in float32: every tail of columns, of depth, of groups of rows."""
    rows, weight = random(row_count, depth, seed=seed), narrowed(random(depth, width, seed=seed + 1), dtype)
    wide_rows, wide_weight = rows.astype(np.float64), widened(weight).astype(np.float64)
    bound = (np.abs(wide_rows) @ np.abs(wide_weight)) * (depth * ROUNDING) + 1e-30
    assert (np.abs(product_of(rows, weight) - wide_rows @ wide_weight) <= bound).all()


@given(
    depth=st.integers(1, 120), width=st.integers(300, 1500), row_count=st.integers(1, 12),
    thread_count=st.integers(2, 5), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=60)
def test_every_way_to_compute_a_product_gives_the_same_bits(
    variant: str, depth: int, width: int, row_count: int, thread_count: int, dtype: str
) -> None:
    """Threads, how many rows are computed together, panels: none of them changes the order of any sum."""
    rows, weight = random(row_count, depth, seed=depth), narrowed(random(depth, width, seed=width), dtype)
    together = product_of(rows, weight)
    assert np.array_equal(product_of(rows, weight, thread_count), together)
    middle = row_count // 2
    assert np.array_equal(product_of(rows[middle:], weight, thread_count), together[middle:])
    first = width // 3
    assert np.array_equal(product_of(rows, np.ascontiguousarray(weight[:, first:])), together[:, first:])


def test_rows_of_a_very_long_round_have_the_bits_that_they_have_alone(variant: str) -> None:
    """More rows than chains are kept of, ranges of k in several pieces: only a part of the rows goes at a time."""
    rows, weight = random(2100, 1200, seed=1), random(1200, 40, seed=2)
    alone = np.concatenate([product_of(rows[first : first + 300], weight) for first in range(0, 2100, 300)])
    for thread_count in (1, 3):
        assert np.array_equal(product_of(rows, weight, thread_count), alone)


@given(depth=st.integers(1, 60), width=st.integers(1, 90), dtype=st.sampled_from(DTYPES))
def test_every_instruction_set_gives_the_same_bits(depth: int, width: int, dtype: str) -> None:
    """Devices of a mesh may differ; their sums do not."""
    rows, weight = random(9, depth, seed=depth), narrowed(random(depth, width, seed=width), dtype)
    products = []
    for name in kernels.variants:
        kernels.choose(name)
        products.append(product_of(rows, weight))
    kernels.choose(kernels.variant)
    assert all(np.array_equal(product, products[0]) for product in products)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_every_number_of_16_bits_is_widened_exactly(variant: str, dtype: str) -> None:
    """Subnormals, infinities and both zeros are what they are; what is not a number stays none."""
    weight = np.arange(2**16).astype(np.uint16).view(NUMPY_DTYPES[dtype]).reshape(1, -1)
    product = product_of(np.ones((1, 1), np.float32), weight)
    assert np.array_equal(product, widened(weight), equal_nan=True)


@given(count=st.integers(0, 3000), thread_count=st.integers(1, 3))
def test_the_plain_sum_reads_every_number_once(variant: str, count: int, thread_count: int) -> None:
    """What benchmarks compare with is not less work than it says."""
    numbers = np.ones(max(1, count * 20), np.float32)
    kernels.set_thread_count(thread_count, least_bytes=0)
    try:
        assert kernels.sum(address(numbers), count * 20) == count * 20
    finally:
        kernels.set_thread_count(1)
