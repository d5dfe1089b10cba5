"""What one tile makes of a few rows, in one call of our own kernels: its weights in memory, or in the page cache.

Covers: weights as the kernels want them, calling (native/tiles.c, native/ranges.c say what they compute).
Does not cover: many rows, other activations and processors without kernels (shardnode/work/kernels.py, matmul.py),
which tiles may be taken from the page cache (weights/cached_reads.py).

All tensors are float32 on the CPU and without gaps, unless something else is said. Results are the same bits wherever
the weights come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.compute import matmul
from common.compute.row_steps import can_step
from common.native.library import WEIGHT_KINDS, Attention, AttentionTile, FfnTile, HeadTile, Matrix, Outcome
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import TensorPlace

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


def can_attend(rows: torch.Tensor, head_size: int) -> bool:
    """Tell whether `attention` takes such rows and heads."""
    return can_step(rows) and head_size <= MOST_HEAD_SIZE


def can_take_from_cache(rows: torch.Tensor) -> bool:
    """Tell whether these rows are few enough to be multiplied with weights in the page cache."""
    return can_step(rows) and rows.shape[0] <= MOST_CACHED_ROWS


def multiply_matrix(rows: torch.Tensor, matrix: Matrix) -> tuple[torch.Tensor, Outcome]:
    """Return rows @ matrix, new [row_count, out]; of no meaning unless DONE."""
    product = torch.empty(rows.shape[0], matrix.width)
    rows = rows.contiguous()
    outcome = matmul.functions().shardmesh_multiply_matrix(rows.data_ptr(), rows.shape[0], matrix, product.data_ptr())
    return product, _checked(outcome)


def feed_forward(rows: torch.Tensor, tile: FfnTile) -> tuple[torch.Tensor, Outcome]:
    """Return a tile's part of down(silu(gate(rows)) * up(rows)): new [row_count, hidden_size]; unless DONE, nothing."""
    part = torch.empty(rows.shape)
    rows = rows.contiguous()
    outcome = matmul.functions().shardmesh_feed_forward(rows.data_ptr(), rows.shape[0], tile, part.data_ptr())
    return part, _checked(outcome)


def attention(rows: torch.Tensor, tile: AttentionTile, segments: Sequence[Attention]) -> tuple[torch.Tensor, Outcome]:
    """Write the segments' keys and values where they belong; return the tile's part of the block's output.

    Args: rows: [row_count, hidden_size], the segments' one after another; segments: made by `segment`.
    Returns: new [row_count, hidden_size], of no meaning unless DONE; then keys and values may be half written.
    """
    part = torch.empty(rows.shape)
    rows = rows.contiguous()
    array = (Attention * len(segments))(*segments)
    outcome = matmul.functions().shardmesh_attention(
        rows.data_ptr(), rows.shape[0], tile, array, len(segments), part.data_ptr()
    )
    return part, _checked(outcome)


def segment(
    row_count: int, first_position: int, tile: HeadTile, heads: CachedHeads, cosine: torch.Tensor,
    sine: torch.Tensor, *, norm_epsilon: float, sliding_window: int,
) -> Attention:  # fmt: skip
    """Return neighbouring rows of one sequence for `attention`; valid while the tensors are.

    Args: cosine, sine: [row_count, 1, head_size], the first half of each sine negated; sliding_window: 0 for none.
    """
    return Attention(
        None, row_count, tile.query_count, tile.kv_count, cosine.shape[-1], tile.bias, tile.query_norm, tile.key_norm,
        norm_epsilon, cosine.data_ptr(), sine.data_ptr(), heads.keys, heads.values, heads.head_pitch, first_position,
        sliding_window, None,
    )  # fmt: skip


def _checked(outcome: int) -> Outcome:
    assert outcome != Outcome.REFUSED, "shapes come from one layout, so they fit"
    return Outcome(outcome)
