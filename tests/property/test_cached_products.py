"""Is a product with weights from the page cache the same to the bit as with weights in memory, and does it never wait?

Covers: every type and shape, threads, a file that is cut short or not cached.
Does not cover: which tiles are taken from there (tests/unit/test_cached_reads.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute.matmul import kernels
from common.compute.tile_products import feed_forward, in_page_cache, multiply_matrix
from common.native.library import FLOAT_KINDS, Outcome
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import TensorPlace
from common.weights.stored_numbers import STORED_NAMES, Floats, Stored, narrowed
from tests.support.native_weights import ffn_tile_of, matrix_of
from tests.support.syncing import sync

pytestmark = [
    pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels"),
    pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot read only what is cached"),
]
OFFSET = 4096 + 64


@pytest.fixture(params=kernels.variants, scope="module")
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set in turn."""
    kernels.choose(request.param)
    yield request.param
    kernels.choose(kernels.variant)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where weights are written."""
    return tmp_path_factory.mktemp("weights") / "weights.bin"


def random(*shape: int, seed: int) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def write(file: Path, *weights: Stored) -> list[TensorPlace]:
    """Write weights one after another, from OFFSET on; return their places relative to it."""
    places, content = [], b""
    for weight in weights:
        places.append(TensorPlace(
            name="weight", dtype=STORED_NAMES[weight.dtype], shape=weight.shape, offset=len(content)
        ))  # fmt: skip
        content += weight.tobytes()
    file.write_bytes(bytes(OFFSET) + content)
    return places


@given(
    depth=st.integers(1, 700), width=st.integers(16, 1100), row_count=st.integers(0, 8),
    thread_count=st.integers(1, 4), kind=st.sampled_from(FLOAT_KINDS),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_product_from_the_cache_has_the_bits_of_one_from_memory(
    variant: str, file: Path, depth: int, width: int, row_count: int, thread_count: int, kind: str
) -> None:
    """Whatever the pieces and whoever takes which range; no rows are no reason to end the process."""
    rows, weight = random(row_count, depth, seed=depth), narrowed(random(depth, width, seed=width), kind)
    (place,) = write(file, weight)
    kernels.set_thread_count(thread_count, least_bytes=0)
    fd = os.open(file, os.O_RDONLY)
    try:
        expected, outcome = multiply_matrix(rows, matrix_of(weight))
        assert outcome is Outcome.DONE
        product, outcome = multiply_matrix(rows, in_page_cache(CachedTile(fd=fd, offset=OFFSET), place))
    finally:
        os.close(fd)
        kernels.set_thread_count(1)
    assert outcome is Outcome.DONE
    assert np.array_equal(product, expected)


def test_rows_too_long_for_a_piece_are_left_to_the_window(file: Path) -> None:
    """Fewer than eight fit into a piece, and then not even one."""
    for width, expected in ((20_000, Outcome.DONE), (70_000, Outcome.NOT_CACHED)):
        rows, weight = random(1, 20, seed=1), random(20, width, seed=2)
        (place,) = write(file, weight)
        fd = os.open(file, os.O_RDONLY)
        product, outcome = multiply_matrix(rows, in_page_cache(CachedTile(fd=fd, offset=OFFSET), place))
        os.close(fd)
        assert outcome is expected
        assert outcome is not Outcome.DONE or np.array_equal(product, multiply_matrix(rows, matrix_of(weight))[0])


@pytest.mark.parametrize("what", ["evicted", "cut short", "closed"])
def test_what_cannot_be_had_at_once_is_not_waited_for(file: Path, what: str) -> None:
    """Neither product of a tile; the caller is told, and nothing is read from the disk."""
    gate_up, down = random(64, 4096, seed=1), random(2048, 64, seed=2)
    places = write(file, gate_up, down)
    fd = os.open(file, os.O_RDWR)
    tile = ffn_tile_of(*[in_page_cache(CachedTile(fd=fd, offset=OFFSET), place) for place in places])
    if what == "evicted":
        sync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    elif what == "cut short":
        os.ftruncate(fd, OFFSET + 64 * 4096 * 4 + 1000)
    else:
        os.close(fd)
    _, outcome = feed_forward(random(1, 64, seed=3), tile)
    assert outcome is Outcome.NOT_CACHED
    if what != "closed":
        os.close(fd)
