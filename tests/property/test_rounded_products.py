"""Are products of rows in 8 bits what a plain sum of whole numbers says, the same bits in every way?

Covers: every encoding but iq4's, which ignore the choice; rounding, rows of zeros, of tiny and of no numbers; company,
threads, instruction sets, weights from the page cache.
Does not cover: other processors (test_instruction_sets.py), what it changes in answers (contract/test_activations.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute.backend import ACTIVATIONS, INT8
from common.compute.matmul import functions, kernels, multiply, multiply_packed, use_activations
from common.compute.tile_products import multiply_matrix
from common.native.library import LEAST_THREADED_BYTES, WEIGHT_KINDS, Matrix, Outcome
from common.weights.encodings import ENCODINGS, PIECE_INPUTS, grain
from common.weights.packed_blocks import pack
from common.weights.stored_numbers import Floats
from tests.support.encoded_weights import random_rows, values_of
from tests.support.rounded_products import ROUNDED, expected_product
from tests.support.thorough import examples

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")


@pytest.fixture(autouse=True)
def _in_8_bits() -> Iterator[None]:
    use_activations(ACTIVATIONS.index(INT8))
    yield
    use_activations(0)
    kernels.choose(kernels.variant)
    kernels.set_thread_count(1, LEAST_THREADED_BYTES)


def noise(*shape: int, seed: int) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def same_bits(one: Floats, other: Floats) -> bool:
    """Tell whether two arrays are equal bit for bit."""
    return one.shape == other.shape and bool((one.view(np.uint32) == other.view(np.uint32)).all())


@pytest.mark.parametrize("encoding", ROUNDED)
def test_a_product_is_the_plain_one_to_the_bit(encoding: str) -> None:
    """Codes times numbers, whole; scales in float32, in the order that integers.c says; on every instruction set."""
    depth, width = max(grain(encoding), 160) if grain(encoding) == PIECE_INPUTS else 5 * 256, 17
    blocks, rows = random_rows(encoding, width, depth), noise(3, depth, seed=1)
    rows[0, :32], rows[1, 32:64] = 0, 1e-35
    expected = expected_product(encoding, rows, blocks)
    for variant in kernels.variants:
        kernels.choose(variant)
        assert same_bits(multiply_packed(rows, pack(encoding, blocks, depth), encoding, depth, width), expected)


@given(
    encoding=st.sampled_from(ROUNDED), blocks=st.integers(1, 6), width=st.sampled_from((1, 15, 17, 100, 401)),
    row_count=st.sampled_from((1, 2, 3, 5, 8, 9, 33)), threads=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=examples(60))
def test_a_row_is_the_same_bits_in_any_company(
    encoding: str, blocks: int, width: int, row_count: int, threads: int, seed: int
) -> None:
    """Beside other rows and alone, by one thread and several, and near what rows of floats give."""
    depth = blocks * grain(encoding)
    own = random_rows(encoding, width, depth, seed)
    packed, rows = pack(encoding, own, depth), noise(row_count, depth, seed=seed)
    kernels.set_thread_count(1, LEAST_THREADED_BYTES)
    alone = np.concatenate([multiply_packed(row[None], packed, encoding, depth, width) for row in rows])
    kernels.set_thread_count(threads, 0)
    assert same_bits(multiply_packed(rows, packed, encoding, depth, width), alone)
    sizes = np.abs(rows) @ np.abs(values_of(encoding, own))
    assert (np.abs(alone - multiply(rows, values_of(encoding, own))) <= np.abs(sizes) * 0.05 + 1e-6).all()


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name not in ROUNDED])
def test_codebooks_are_multiplied_with_floats_all_the_same(encoding: str) -> None:
    """Iq4's codes are no whole numbers in a row."""
    packed, rows = pack(encoding, random_rows(encoding, 20, 256), 256), noise(2, 256, seed=2)
    in_8_bits = multiply_packed(rows, packed, encoding, 256, 20)
    use_activations(0)
    assert same_bits(in_8_bits, multiply_packed(rows, packed, encoding, 256, 20))


@pytest.mark.parametrize("what", [np.inf, -np.inf, np.nan])
def test_a_row_of_no_numbers_stays_one_and_leaves_others_alone(what: float) -> None:
    """Else an error in a block would become an answer."""
    for encoding in ROUNDED:
        packed, rows = pack(encoding, random_rows(encoding, 17, 512), 512), noise(4, 512, seed=1)
        rows[2, 7] = what
        finite = np.isfinite(multiply_packed(rows, packed, encoding, 512, 17)).any(axis=1)
        assert (~finite).nonzero()[0].tolist() == [2], encoding


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot read only what is cached")
def test_weights_from_the_page_cache_give_the_bits_of_those_in_memory(tmp_path: Path) -> None:
    """Of more groups than one piece of the cache has."""
    depth, width = 1280, 700
    for encoding in ("q4_1", "q8_0", "q6_k"):
        packed, kind = pack(encoding, random_rows(encoding, width, depth), depth), WEIGHT_KINDS.index(encoding)
        (tmp_path / "weights").write_bytes(packed.tobytes())
        with (tmp_path / "weights").open("rb") as file:
            rows = noise(5, depth, seed=3)
            product, outcome = multiply_matrix(rows, Matrix(None, 0, file.fileno(), kind, depth, width))
        assert outcome is Outcome.DONE
        assert same_bits(product, multiply_matrix(rows, Matrix(packed.ctypes.data, 0, -1, kind, depth, width))[0])


def test_there_are_two_kinds_of_activations() -> None:
    """And the choice is a thread's own: what another one computes meanwhile is not changed by it."""
    assert functions().shardmesh_use_activations(len(ACTIVATIONS)) == functions().shardmesh_use_activations(-1) == 1
