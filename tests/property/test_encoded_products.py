"""Are weights in GGUF's blocks what the gguf package says, and a product with them the same bits in every way?

Covers: every encoding: all values, products of few rows and many, threads, instruction sets, the page cache, odd
widths, depths that four ranges do not share equally; equal to a float32 product that is cut at the same places.
Does not cover: tiles (test_encoded_tiles.py), sizes and what is refused (tests/unit/test_encodings.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute.matmul import kernels, multiply, multiply_packed
from common.compute.tile_products import multiply_matrix
from common.native.library import LEAST_THREADED_BYTES, WEIGHT_KINDS, Matrix, Outcome
from common.weights.encodings import ENCODINGS, PIECE_INPUTS, grain
from common.weights.packed_blocks import Bytes, output_row, pack, unpacked
from common.weights.stored_numbers import Floats
from tests.support.encoded_weights import random_rows, values_of
from tests.support.thorough import examples

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")
DEPTH_RANGES, RANGE_UNIT = 4, 8
"""native/product.h has the same."""
OFFSET = 4096 + 64
ENCODING_NAMES = st.sampled_from(sorted(ENCODINGS))


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    kernels.choose(kernels.variant)
    kernels.set_thread_count(1, LEAST_THREADED_BYTES)


def depth_of(encoding: str, blocks: int) -> int:
    """Return so many pieces of 32 inputs, or so many superblocks' worth of fewer."""
    return 32 * blocks if grain(encoding) == 32 else 256 * -(-blocks // 5)


def noise(*shape: int, seed: int) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def same_bits(one: Floats, other: Floats) -> bool:
    """Tell whether two arrays are equal bit for bit."""
    return one.shape == other.shape and bool((one.view(np.uint32) == other.view(np.uint32)).all())


def cut_alike(rows: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return rows and float32 weights with zeros after each range, so that a float32 product is cut where ours is."""
    depth = len(weight)
    starts = [depth // DEPTH_RANGES // PIECE_INPUTS * PIECE_INPUTS * number for number in range(DEPTH_RANGES)]
    ranges = list(zip(starts, [*starts[1:], depth], strict=True))
    longest = max(stop - start for start, stop in ranges)
    assert longest % RANGE_UNIT == 0
    wide_rows = np.zeros((len(rows), DEPTH_RANGES * longest), np.float32)
    tall = np.zeros((DEPTH_RANGES * longest, weight.shape[1]), np.float32)
    for number, (start, stop) in enumerate(ranges):
        at = slice(number * longest, number * longest + stop - start)
        wide_rows[:, at], tall[at] = rows[:, start:stop], weight[start:stop]
    return wide_rows, tall


@given(
    encoding=ENCODING_NAMES,
    blocks=st.integers(1, 12),
    width=st.sampled_from((1, 15, 16, 17, 40)),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(100))
def test_every_value_is_the_one_that_gguf_has(encoding: str, blocks: int, width: int, seed: int) -> None:
    """Bit for bit, of all outputs together and of one alone, on every instruction set."""
    depth = depth_of(encoding, blocks)
    rows = random_rows(encoding, width, depth, seed)
    packed, values = pack(encoding, rows, depth), values_of(encoding, rows)
    for variant in kernels.variants:
        kernels.choose(variant)
        assert same_bits(unpacked(encoding, packed, depth, width), values)
        assert same_bits(output_row(encoding, packed, depth, seed % width), values[:, seed % width].copy())


@given(
    encoding=ENCODING_NAMES, blocks=st.integers(1, 32), width=st.sampled_from((1, 15, 17, 40, 100, 401)),
    row_count=st.sampled_from((1, 2, 3, 8, 9, 31, 32, 33, 100)), threads=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=examples(160))
def test_a_product_is_the_same_bits_in_any_company(
    encoding: str, blocks: int, width: int, row_count: int, threads: int, seed: int
) -> None:
    """Rows, threads and instruction sets change nothing; a float32 product cut at the same ranges is equal to it."""
    depth = depth_of(encoding, blocks)
    blocks_of_rows = random_rows(encoding, width, depth, seed)
    packed, rows = pack(encoding, blocks_of_rows, depth), noise(row_count, depth, seed=seed)
    expected = multiply(*cut_alike(rows, values_of(encoding, blocks_of_rows)))
    kernels.set_thread_count(threads, 0)
    for variant in kernels.variants:
        kernels.choose(variant)
        assert same_bits(multiply_packed(rows, packed, encoding, depth, width), expected)
        middle = row_count // 2
        assert same_bits(multiply_packed(rows[middle:], packed, encoding, depth, width), expected[middle:].copy())


def test_a_row_of_no_numbers_leaves_others_alone() -> None:
    """And outputs that the last group lacks are never seen."""
    packed = pack("q4_k", random_rows("q4_k", 17, 512), 512)
    for row_count in (5, 45):
        rows = noise(row_count, 512, seed=1)
        rows[2, 7] = np.inf
        finite = np.isfinite(multiply_packed(rows, packed, "q4_k", 512, 17)).all(axis=1)
        assert (~finite).nonzero()[0].tolist() == [2]


def cached(file: Path, packed: Bytes, encoding: str, depth: int, width: int, kept: int | None = None) -> Matrix:
    """Write packed weights, the first `kept` bytes only; return them as a matrix of the page cache."""
    file.write_bytes(bytes(OFFSET) + packed.tobytes()[:kept])
    return Matrix(None, OFFSET, os.open(file, os.O_RDONLY), WEIGHT_KINDS.index(encoding), depth, width)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot read only what is cached")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("thread_count", [1, 3])
def test_weights_from_the_page_cache_give_the_bits_of_those_in_memory(
    tmp_path: Path, encoding: str, thread_count: int
) -> None:
    """A matrix of several pieces, and one whose last group is missing from the file."""
    depth, width = 1280, 700
    packed, kind = pack(encoding, random_rows(encoding, width, depth), depth), WEIGHT_KINDS.index(encoding)
    kernels.set_thread_count(thread_count, 0)
    for variant in kernels.variants:
        kernels.choose(variant)
        for row_count in (1, 8, 20):
            rows = noise(row_count, depth, seed=row_count)
            matrix = cached(tmp_path / "whole", packed, encoding, depth, width)
            product, outcome = multiply_matrix(rows, matrix)
            os.close(matrix.fd)
            in_memory = Matrix(packed.ctypes.data, 0, -1, kind, depth, width)
            assert outcome is Outcome.DONE
            assert same_bits(product, multiply_matrix(rows, in_memory)[0])
        matrix = cached(tmp_path / "short", packed, encoding, depth, width, kept=len(packed) - 1)
        assert multiply_matrix(rows, matrix)[1] is Outcome.NOT_CACHED
        os.close(matrix.fd)
