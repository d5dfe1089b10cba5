"""What one tile makes of rows, in one call of our own kernels: its weights in memory, or in the page cache.

Covers: weights as the kernels want them, calling (native/tiles.c, native/ranges.c say what they compute).
Does not cover: the same in torch (torch_backend.py), which tiles may be taken from the page cache
(weights/cached_reads.py).

All arrays are float32 and without gaps, unless something else is said. Results are the same bits wherever the weights
come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.compute.address import address
from common.compute.matmul import functions
from common.native.library import WEIGHT_KINDS, Attention, AttentionTile, FfnTile, HeadTile, Matrix, Outcome
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import TensorPlace
from common.weights.stored_numbers import Floats

MOST_HEAD_SIZE = 512
"""native/steps.h has the same."""
MOST_CACHED_ROWS = 8
"""Of more, the sums alone are larger than the nearest caches; they go through the window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedHeads:
    """Where the keys and values of neighbouring KV heads lie: addresses of the first head's position 0."""

    keys: int
    values: int
    head_pitch: int
    """float32 numbers from one head to the next."""


def in_memory(tile_address: int, place: TensorPlace) -> Matrix:
    """Return the weights [in, out] at `place` of a tile that begins at an address of memory."""
    return Matrix(tile_address + place.offset, 0, -1, WEIGHT_KINDS.index(place.dtype), *place.shape)


def in_page_cache(tile: CachedTile, place: TensorPlace) -> Matrix:
    """Return the weights [in, out] at `place` of a tile in the page cache."""
    return Matrix(None, tile.offset + place.offset, tile.fd, WEIGHT_KINDS.index(place.dtype), *place.shape)


def can_take_from_cache(rows: Floats) -> bool:
    """Tell whether these rows are few enough to be multiplied with weights in the page cache."""
    return len(rows) <= MOST_CACHED_ROWS


def multiply_matrix(rows: Floats, matrix: Matrix) -> tuple[Floats, Outcome]:
    """Return rows @ matrix, new [row_count, out]; of no meaning unless DONE."""
    product = np.empty((rows.shape[0], matrix.width), np.float32)
    rows = np.ascontiguousarray(rows)
    outcome = functions().shardmesh_multiply_matrix(address(rows), rows.shape[0], matrix, address(product))
    return product, _checked(outcome)


def feed_forward(rows: Floats, tile: FfnTile) -> tuple[Floats, Outcome]:
    """Return a tile's part of down(silu(gate(rows)) * up(rows)): new [row_count, hidden_size]; unless DONE, nothing."""
    part = np.empty(rows.shape, np.float32)
    rows = np.ascontiguousarray(rows)
    outcome = functions().shardmesh_feed_forward(address(rows), rows.shape[0], tile, address(part))
    return part, _checked(outcome)


def attention(rows: Floats, tile: AttentionTile, segments: Sequence[Attention]) -> tuple[Floats, Outcome]:
    """Write the segments' keys and values where they belong; return the tile's part of the block's output.

    Args: rows: [row_count, hidden_size], the segments' one after another; segments: made by `segment`.
    Returns: new [row_count, hidden_size], of no meaning unless DONE; then keys and values may be half written.
    """
    part = np.empty(rows.shape, np.float32)
    rows = np.ascontiguousarray(rows)
    array = (Attention * len(segments))(*segments)
    outcome = functions().shardmesh_attention(
        address(rows), rows.shape[0], tile, array, len(segments), address(part)
    )
    return part, _checked(outcome)


def segment(
    row_count: int, first_position: int, tile: HeadTile, heads: CachedHeads, cosine: Floats,
    sine: Floats, *, norm_epsilon: float, sliding_window: int,
) -> Attention:  # fmt: skip
    """Return neighbouring rows of one sequence for `attention`; valid while the arrays are.

    Args: cosine, sine: [row_count, 1, head_size], the first half of each sine negated; sliding_window: 0 for none.
    """
    return Attention(
        None, row_count, tile.query_count, tile.kv_count, cosine.shape[-1], tile.bias, tile.query_norm, tile.key_norm,
        norm_epsilon, address(cosine), address(sine), heads.keys, heads.values, heads.head_pitch, first_position,
        sliding_window, None,
    )  # fmt: skip


def _checked(outcome: int) -> Outcome:
    assert outcome != Outcome.REFUSED, "shapes come from one layout, so they fit"
    return Outcome(outcome)
