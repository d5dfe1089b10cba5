"""Is every product right, and the same to the bit however it is computed?

Covers: the native kernels of each instruction set that this processor has, all shapes, row counts and thread counts.
Does not cover: who computes which product (tests/unit/test_matmul.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute import matmul
from common.compute.matmul import kernels

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROUNDING = 2.0**-24
"""Of one float32 operation, relative."""


@pytest.fixture(params=kernels.variants, scope="module")
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set in turn."""
    kernels.choose(request.param)
    yield request.param
    kernels.choose(kernels.variant)


def random(*shape: int, seed: int) -> torch.Tensor:
    """Return float32 noise of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 10.0 ** torch.randint(-3, 3, shape, generator=generator)


def natively(rows: torch.Tensor, weight: torch.Tensor, thread_count: int = 1) -> torch.Tensor:
    """Return the kernels' product."""
    kernels.set_thread_count(thread_count, least_bytes=0)
    try:
        return matmul._natively(rows, weight)
    finally:
        kernels.set_thread_count(1)


@given(
    depth=st.integers(0, 50), width=st.integers(0, 100), row_count=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=150)
def test_a_product_is_as_exact_as_float32_sums_are(
    variant: str, depth: int, width: int, row_count: int, dtype: torch.dtype, seed: int
) -> None:
    """Against float64, within the bound of a sum in float32: every tail of columns, of depth, of groups of rows."""
    rows, weight = random(row_count, depth, seed=seed), random(depth, width, seed=seed + 1).to(dtype)
    exact = rows.double() @ weight.double()
    bound = (rows.double().abs() @ weight.double().abs()) * (depth * ROUNDING) + 1e-30
    assert bool(((natively(rows, weight).double() - exact).abs() <= bound).all())


@given(
    depth=st.integers(1, 120), width=st.integers(300, 1500), row_count=st.integers(1, 12),
    thread_count=st.integers(2, 5), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=60)
def test_every_way_to_compute_a_product_gives_the_same_bits(
    variant: str, depth: int, width: int, row_count: int, thread_count: int, dtype: torch.dtype
) -> None:
    """Threads, how many rows are computed together, panels: none of them changes the order of any sum."""
    rows, weight = random(row_count, depth, seed=depth), random(depth, width, seed=width).to(dtype)
    together = natively(rows, weight)
    assert torch.equal(natively(rows, weight, thread_count), together)
    middle = row_count // 2
    assert torch.equal(natively(rows[middle:], weight, thread_count), together[middle:])
    first = width // 3
    assert torch.equal(natively(rows, weight[:, first:].contiguous()), together[:, first:])


@given(depth=st.integers(1, 60), width=st.integers(1, 90), dtype=st.sampled_from(DTYPES))
def test_every_instruction_set_gives_the_same_bits(depth: int, width: int, dtype: torch.dtype) -> None:
    """Devices of a mesh may differ; their sums do not."""
    rows, weight = random(9, depth, seed=depth), random(depth, width, seed=width).to(dtype)
    products = []
    for name in kernels.variants:
        kernels.choose(name)
        products.append(natively(rows, weight))
    kernels.choose(kernels.variant)
    assert all(torch.equal(product, products[0]) for product in products)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_every_number_of_16_bits_is_widened_exactly(variant: str, dtype: torch.dtype) -> None:
    """Subnormals, infinities and both zeros are what they are; what is not a number stays none."""
    weight = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).view(1, -1)
    product, expected = natively(torch.ones(1, 1), weight), weight.float()
    assert torch.equal(product.isnan(), expected.isnan())
    assert torch.equal(product.nan_to_num(), expected.nan_to_num())


@given(count=st.integers(0, 3000), thread_count=st.integers(1, 3))
def test_the_plain_sum_reads_every_number_once(variant: str, count: int, thread_count: int) -> None:
    """What benchmarks compare with is not less work than it says."""
    numbers = torch.ones(max(1, count * 20))
    kernels.set_thread_count(thread_count, least_bytes=0)
    try:
        assert kernels.sum(numbers.data_ptr(), count * 20) == count * 20
    finally:
        kernels.set_thread_count(1)
