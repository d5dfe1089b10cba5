"""What do programs say when a kernel answers that it could not: no memory for so many rows, or shapes that do not fit?

Covers: a tile's two products, whole layers; that either is told apart, in words.
Does not cover: weights that are not in the page cache (tests/property/test_cached_products.py).
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.compute.tile_products import attention, checked, feed_forward
from common.errors import InternalError, ResourceError
from common.native.address import address
from common.native.library import FfnTile, LayersModel, Matrix, Outcome
from common.weights.stored_numbers import Floats
from tests.support.native_weights import attention_tile_of, ffn_tile_of, matrix_of

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")
ROWS, WEIGHTS = np.ones((1, 8), np.float32), np.ones((8, 16), np.float32)
NO_MACHINE_HAS = 1 << 42
"""Rows whose intermediate results take more than the addresses that a process has."""


def ffn_tile(gate_up: Floats, down: Floats) -> FfnTile:
    """Return a tile of these weights."""
    return ffn_tile_of(matrix_of(gate_up), matrix_of(down))


def test_rows_that_memory_is_too_small_for_are_told_as_that() -> None:
    """Of a feed-forward tile and of an attention tile: fewer rows would do, and the words say so."""
    assert kernels.functions is not None
    ffn = ffn_tile(WEIGHTS, np.ones((8, 8), np.float32))
    heads = attention_tile_of(matrix_of(WEIGHTS), Matrix(0, 0, -1, 0, 8, 8))
    for call in (
        lambda: kernels.functions.shardmesh_feed_forward(address(ROWS), NO_MACHINE_HAS, ffn, None),  # type: ignore[union-attr]  # asserted
        lambda: kernels.functions.shardmesh_attention(address(ROWS), NO_MACHINE_HAS, heads, None, 0, None),  # type: ignore[union-attr]  # asserted
    ):
        outcome = call()
        assert outcome == Outcome.NO_MEMORY
        with pytest.raises(ResourceError, match="no memory for the rows of this round; send fewer at a time"):
            checked(outcome)


def test_layers_that_memory_is_too_small_for_are_told_as_that() -> None:
    """Nothing is done, and the outcome says why."""
    assert kernels.functions is not None
    outcome = ctypes.c_int(-1)
    model = LayersModel(8, 8, 1, 1e-5)
    done = kernels.functions.shardmesh_run_layers(
        address(ROWS), NO_MACHINE_HAS, model, None, 0, 1, None, 1, None, outcome
    )
    assert (done, outcome.value) == (0, Outcome.NO_MEMORY)


def test_shapes_that_do_not_fit_are_a_bug_and_no_want_of_memory() -> None:
    """Whoever sends fewer rows would be refused again."""
    with pytest.raises(InternalError, match="shapes do not fit"):
        feed_forward(ROWS, ffn_tile(WEIGHTS, np.ones((7, 8), np.float32)))
    with pytest.raises(InternalError, match="shapes do not fit"):
        attention(ROWS, attention_tile_of(matrix_of(WEIGHTS), matrix_of(np.ones((8, 8), np.float32))), [])
