"""Is a row's product the same bits in a prompt as alone, whatever the company, the threads and the instruction set?

Covers: products of more rows than one pass over the weights takes (common/native/gemm.c), odd sizes, stored dtypes.
Does not cover: products of few rows (test_matmul.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.native.library import FLOAT_KINDS, LEAST_THREADED_BYTES, load
from common.weights.stored_numbers import Floats, Stored, narrowed, widened

MOST_FEW_ROWS = 32
kernels = load()
pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    kernels.choose(kernels.variant)
    kernels.set_thread_count(1, LEAST_THREADED_BYTES)


def product(rows: Floats, weight: Stored, kind: int) -> Floats:
    """Return rows @ weight by our kernels."""
    assert kernels.functions is not None
    sums = np.full((len(rows), weight.shape[1]), np.nan, np.float32)
    outcome = kernels.functions.shardmesh_multiply(
        rows.ctypes.data, rows.strides[0] // 4, len(rows), weight.ctypes.data, kind, *weight.shape, sums.ctypes.data
    )
    assert outcome == 0
    return sums


def same_bits(one: Floats, other: Floats) -> bool:
    """Tell whether two arrays are equal bit for bit."""
    return bool((one.view(np.uint32) == other.view(np.uint32)).all())


@given(
    row_count=st.integers(MOST_FEW_ROWS + 1, 150), depth=st.integers(0, 140), width=st.integers(1, 210),
    kind=st.sampled_from(range(len(FLOAT_KINDS))), threads=st.integers(1, 3), together=st.integers(1, MOST_FEW_ROWS),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(row_count=33, depth=1100, width=400, kind=0, threads=2, together=8, seed=1)  # ranges of several pieces
@example(
    row_count=257, depth=2049, width=97, kind=2, threads=3, together=1, seed=2
)  # more parts of rows than of columns
@example(row_count=40, depth=31, width=1, kind=1, threads=1, together=5, seed=3)  # ranges without a row
def test_a_row_among_many_is_the_same_bits_as_among_few(
    row_count: int, depth: int, width: int, kind: int, threads: int, together: int, seed: int
) -> None:
    """On every instruction set of this processor; also where rows lie apart in memory."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((row_count, depth + 3), dtype=np.float32)[:, :depth]
    weight = narrowed(random.standard_normal((depth, width), dtype=np.float32), FLOAT_KINDS[kind])
    kernels.set_thread_count(threads, 0)
    found = []
    for variant in kernels.variants:
        kernels.choose(variant)
        found.append(product(rows, weight, kind))
        few = [product(rows[first : first + together], weight, kind) for first in range(0, row_count, together)]
        assert same_bits(found[-1], np.concatenate(few))
    assert all(same_bits(found[0], other) for other in found)
    exact = rows.astype(np.float64) @ widened(weight).astype(np.float64)
    bound = np.abs(rows).astype(np.float64) @ np.abs(widened(weight)).astype(np.float64)
    assert (np.abs(found[0] - exact) <= 1e-6 * bound + 1e-30).all()


def test_what_is_no_number_stays_in_its_row_and_column() -> None:
    """Rows and columns that fill up a block of registers are never seen."""
    random = np.random.default_rng(0)
    rows, weight = (
        random.standard_normal((45, 64), dtype=np.float32),
        random.standard_normal((64, 33), dtype=np.float32),
    )
    rows[44, 3], weight[5, 32] = np.inf, np.nan
    sums = product(rows, weight, 0)
    is_finite = np.isfinite(sums)
    assert is_finite[:44, :32].all()
    assert not is_finite[44].any()
    assert not is_finite[:, 32].any()
