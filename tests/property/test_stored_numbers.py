"""Do our own kernels widen and narrow as numpy does, bit for bit?

Covers: every number of 16 bits; float32 of all sizes, halfway between two numbers of 16 bits among them; every
instruction set and several threads.
Does not cover: products with such numbers (test_matmul.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from common.native.library import shared
from common.weights import stored_numbers
from common.weights.stored_numbers import NUMPY_DTYPES, Stored, narrowed, widened

kernels = shared()
NARROW = ("float16", "bfloat16")


@pytest.fixture(params=kernels.variants, scope="module", autouse=True)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set that this processor has, and with all that threads may take."""
    kernels.choose(request.param)
    kernels.set_thread_count(3, 0)
    yield request.param
    kernels.choose(kernels.variant)
    kernels.set_thread_count(1)


def without_kernels(function: object, *arguments: object) -> Stored:
    """Return what numpy alone makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_numbers, "_functions", lambda: None)
        return function(*arguments)  # type: ignore[operator,no-any-return]  # one of the module's


def is_none(stored: Stored, dtype: str) -> NDArray[np.bool_]:
    """Tell of each number whether it is none."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint16) & 0x7FFF) > 0x7F80
    return np.isnan(stored)


def are_same(found: Stored, expected: Stored, dtype: str) -> bool:
    """Tell whether all bits are equal; of what is no number, only that it is none."""
    bits = np.dtype(f"u{found.itemsize}")
    is_equal = found.view(bits) == expected.view(bits)
    is_right = np.where(is_none(expected, dtype), is_none(found, dtype), is_equal)
    return found.dtype == expected.dtype and found.shape == expected.shape and bool(is_right.all())


@pytest.mark.parametrize("dtype", NARROW)
def test_every_number_of_16_bits_is_widened_exactly(dtype: str) -> None:
    """And comes back as it was; at any beginning and end."""
    numbers = np.arange(2**16, dtype=np.uint16).view(NUMPY_DTYPES[dtype])
    for first, stop in ((0, 2**16), (1, 2**16 - 3), (30_000, 30_001)):
        own = numbers[first:stop]
        found = widened(own)
        assert are_same(found, without_kernels(widened, own), "float32")
        assert are_same(narrowed(found, dtype), own, dtype)


@pytest.mark.parametrize("dtype", NARROW)
def test_numbers_are_narrowed_to_the_nearest(dtype: str) -> None:
    """Any bits, and those just below, on and above the middle between two neighbours."""
    patterns = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32)
    neighbours = widened(np.arange(2**16, dtype=np.uint16).view(NUMPY_DTYPES[dtype]))
    with np.errstate(all="ignore"):
        middles = (neighbours + (np.roll(neighbours, 1) - neighbours) / 2).astype(np.float32)
    values = np.concatenate((
        patterns.view(np.float32), middles, np.nextafter(middles, np.float32(np.inf)),
        np.nextafter(middles, np.float32(-np.inf)),
    ))  # fmt: skip
    assert are_same(narrowed(values, dtype), without_kernels(narrowed, values, dtype), dtype)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3), elements=st.floats(width=32)))
def test_shapes_and_steps_are_kept(values: NDArray[np.float32]) -> None:
    """Arrays with gaps between their numbers are converted too."""
    for own in (values, values[..., ::2]):
        for dtype in NARROW:
            small = narrowed(own, dtype)
            assert are_same(small, without_kernels(narrowed, own, dtype), dtype)
            assert are_same(widened(small), without_kernels(widened, small), "float32")
