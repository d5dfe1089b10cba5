"""Are tiles whose matrices have encodings of their own, or begin inside a block, what one matrix of all would make?

Covers: gate and up, and q, k and v, apart and side by side; a last matrix of which a tile has only some inputs.
Does not cover: products (test_encoded_products.py), what is refused (tests/support/encoded_calls.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from common.compute.matmul import kernels
from common.compute.tile_products import attention, feed_forward
from common.errors import InternalError
from common.native.address import address
from common.native.library import WEIGHT_KINDS, Attention, AttentionTile, FfnTile, Matrix, Outcome
from common.weights.packed_blocks import Bytes, pack
from common.weights.stored_numbers import Floats
from tests.support.encoded_weights import random_rows

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")
HIDDEN, COLUMNS = 512, 160
HEAD_SIZE, QUERIES, KEYS = 32, 4, 2
ENCODED = ("q8_0", "q4_k", "q6_k", "q5_0")


class Packed:
    """Packs rows of blocks and keeps them."""

    def __init__(self) -> None:
        self._kept: list[Bytes] = []

    def matrix(self, encoding: str, rows: Bytes, depth: int) -> Matrix:
        """Return rows of blocks, outputs, as a matrix in memory."""
        packed = pack(encoding, rows, depth)
        self._kept.append(packed)
        return Matrix(packed.ctypes.data, 0, -1, WEIGHT_KINDS.index(encoding), depth, len(rows))


def noise(*shape: int, seed: int = 0) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def ffn(projections: Sequence[Matrix], down: Matrix, skip: int = 0) -> FfnTile:
    """Return a tile without a bias."""
    return FfnTile((Matrix * 2)(*projections), len(projections), 0, down, skip, None)


def part_of(tile: FfnTile, rows: Floats) -> Floats:
    """Return what a tile makes of rows."""
    part, outcome = feed_forward(rows, tile)
    assert outcome is Outcome.DONE
    return part


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("row_count", [1, 3, 40])
def test_gate_and_up_apart_are_what_they_are_side_by_side(encoding: str, row_count: int) -> None:
    """A width that is a multiple of 16, so that groups are the same."""
    packed = Packed()
    gate, up = (random_rows(encoding, COLUMNS, HIDDEN, seed) for seed in (1, 2))
    down = packed.matrix("q5_0", random_rows("q5_0", HIDDEN, COLUMNS, 3), COLUMNS)
    both = packed.matrix(encoding, np.concatenate([gate, up]), HIDDEN)
    apart = [packed.matrix(encoding, rows, HIDDEN) for rows in (gate, up)]
    rows = noise(row_count, HIDDEN)
    assert np.array_equal(part_of(ffn(apart, down), rows), part_of(ffn([both], down), rows))


@pytest.mark.parametrize("row_count", [1, 3, 40])
@pytest.mark.parametrize("skip", [0, 32, 96])
def test_inputs_of_another_rank_count_as_zero(row_count: int, skip: int) -> None:
    """The same bits as with columns there whose weights are all zero."""
    packed, rows = Packed(), noise(row_count, HIDDEN)
    gate, up = (random_rows("q4_0", COLUMNS, HIDDEN, seed) for seed in (1, 2))
    down = packed.matrix("q6_k", random_rows("q6_k", HIDDEN, 256, 3), 256)
    wide = [np.zeros((256, gate.shape[1]), np.uint8) for _ in range(2)]
    wide[0][skip : skip + COLUMNS], wide[1][skip : skip + COLUMNS] = gate, up
    own = ffn([packed.matrix("q4_0", matrix, HIDDEN) for matrix in (gate, up)], down, skip)
    whole = ffn([packed.matrix("q4_0", matrix, HIDDEN) for matrix in wide], down)
    assert np.array_equal(part_of(own, rows), part_of(whole, rows))


def test_a_cut_that_does_not_lie_in_its_matrix_is_refused() -> None:
    """Before its first input, beyond its last one, gate and up of two widths."""
    packed, rows = Packed(), noise(1, HIDDEN)
    gate, other = (packed.matrix("q4_0", random_rows("q4_0", width, HIDDEN), HIDDEN) for width in (COLUMNS, 96))
    down = packed.matrix("q6_k", random_rows("q6_k", HIDDEN, 256), 256)
    for projections, skip in (((gate, gate), -1), ((gate, gate), 97), ((gate, other), 0)):
        with pytest.raises(InternalError, match="shapes do not fit"):
            feed_forward(rows, ffn(projections, down, skip))


def attended(tile: AttentionTile, rows: Floats) -> Floats:
    """Return what a tile makes of the first rows of a sequence."""
    store, turns = np.zeros((2, KEYS, len(rows), HEAD_SIZE), np.float32), noise(len(rows), HEAD_SIZE, seed=9)
    segment = Attention(
        None, len(rows), QUERIES, KEYS, HEAD_SIZE, None, None, None, 1e-5, address(turns), address(turns),
        address(store[0]), address(store[1]), len(rows) * HEAD_SIZE, 0, 0, None,
    )  # fmt: skip
    part, outcome = attention(rows, tile, [segment])
    assert outcome is Outcome.DONE
    return part


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("row_count", [1, 3, 40])
def test_q_k_and_v_apart_are_what_they_are_side_by_side(encoding: str, row_count: int) -> None:
    """And the context may be some inputs of the last matrix, the rest of which count as zero."""
    packed, rows, width = Packed(), noise(row_count, HIDDEN), HEAD_SIZE * QUERIES
    parts = [random_rows(encoding, HEAD_SIZE * heads, HIDDEN, heads) for heads in (QUERIES, KEYS, KEYS)]
    output = random_rows("q8_0", HIDDEN, width, 5)
    zeros = random_rows("q8_0", HIDDEN, 32, 6)
    apart = [packed.matrix(encoding, part, HIDDEN) for part in parts]
    both = [packed.matrix(encoding, np.concatenate(parts), HIDDEN)]
    last = packed.matrix("q8_0", output, width)
    one, three = (AttentionTile((Matrix * 3)(*projections), len(projections), last, 0) for projections in (both, apart))
    expected = attended(one, rows)
    assert np.array_equal(attended(three, rows), expected)
    longer = packed.matrix("q8_0", np.concatenate([zeros, output, zeros], axis=1), width + 64)
    cut = AttentionTile((Matrix * 3)(*apart), 3, longer, 32)
    assert np.allclose(
        attended(cut, rows), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )  # ranges lie elsewhere
