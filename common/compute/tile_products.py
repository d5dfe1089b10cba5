"""What one tile makes of rows, in one call of our own kernels: its weights in memory, or in the page cache.

Covers: weights as the kernels want them, calling (native/tiles.c, native/ranges.c say what they compute).
Does not cover: the same in torch (torch_backend.py), which tiles may be taken from the page cache
(weights/cached_reads.py).

All arrays are float32 and without gaps, unless something else is said. Results are the same bits wherever the weights
come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from common.compute.matmul import functions
from common.errors import InternalError, ResourceError
from common.model.model_spec import ACTIVATIONS
from common.native.address import address
from common.native.library import WEIGHT_KINDS, Attention, AttentionTile, FfnTile, HeadTile, Matrix, Outcome
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.stored_numbers import Floats
from common.weights.tile_source import TileSource

MOST_HEAD_SIZE = 512
"""native/steps.h has the same."""
HEAD_VECTORS = ("qkv_bias", "query_norm", "key_norm")
"""What an attention tile may have beside its matrices, in the order of HeadTile's fields."""
FFN_VECTORS = ("gate_up_bias",)
"""The same of an FFN tile."""
HEAD_PROJECTIONS, FFN_PROJECTIONS = ("query", "key", "value"), ("gate", "up")
"""What matrices are called that have encodings of their own; else they lie side by side in one, `qkv` and `gate_up`."""
MOST_CACHED_ROWS = 8
"""Of more, the sums alone are larger than the nearest caches; they go through the window."""
_OUTCOMES = tuple(Outcome)  # by number: asking the class takes ten times as long


MatrixAt = Callable[[TensorPlace], Matrix]
VectorAt = Callable[[TensorPlace], "int | None"]


def in_memory(tile_address: int, place: TensorPlace) -> Matrix:
    """Return the weights [in, out] at `place` of a tile that begins at an address of memory."""
    return Matrix(tile_address + place.offset, 0, -1, WEIGHT_KINDS.index(place.dtype), *place.shape)


def in_page_cache(tile: CachedTile, place: TensorPlace) -> Matrix:
    """Return the weights [in, out] at `place` of a tile in the page cache."""
    return Matrix(None, tile.offset + place.offset, tile.fd, WEIGHT_KINDS.index(place.dtype), *place.shape)


def ffn_tile(layout: TileLayout, activation: str, matrix: MatrixAt, vector: VectorAt) -> FfnTile:
    """Return an FFN tile. Args: matrix, vector: where what lies at a place of the tile is; no vector: set later."""
    places = {place.name: place for place in layout.tensors}
    vectors = [vector(places[name]) if name in places else None for name in FFN_VECTORS]
    projections = [matrix(places[name]) for name in _names(places, "gate_up", FFN_PROJECTIONS)]
    return FfnTile(
        (Matrix * 2)(*projections), len(projections), ACTIVATIONS.index(activation), matrix(places["down"]),
        layout.skip, *vectors,
    )  # fmt: skip


def head_tile(
    layout: TileLayout, first_kv_head: int, matrix: MatrixAt, vector: VectorAt
) -> HeadTile:  # fmt: skip
    """Return a tile of attention. Args: first_kv_head: among those that this rank holds; the others: as ffn_tile."""
    places = {place.name: place for place in layout.tensors}
    vectors = [vector(places[name]) if name in places else None for name in HEAD_VECTORS]
    projections = [matrix(places[name]) for name in _names(places, "qkv", HEAD_PROJECTIONS)]
    matrices = AttentionTile((Matrix * 3)(*projections), len(projections), matrix(places["output"]), layout.skip)
    return HeadTile(matrices, *vectors, layout.count, layout.kv_count, first_kv_head)


def _names(places: Mapping[str, TensorPlace], together: str, apart: Sequence[str]) -> Sequence[str]:
    return (together,) if together in places else apart


def can_take_from_cache(rows: Floats) -> bool:
    """Tell whether these rows are few enough to be multiplied with weights in the page cache."""
    return len(rows) <= MOST_CACHED_ROWS


def multiply_matrix(rows: Floats, matrix: Matrix) -> tuple[Floats, Outcome]:
    """Return rows @ matrix, new [row_count, out]; of no meaning unless DONE."""
    assert rows.shape[1] == matrix.depth
    product = np.empty((rows.shape[0], matrix.width), np.float32)
    rows = np.ascontiguousarray(rows)
    outcome = functions().shardmesh_multiply_matrix(address(rows), rows.shape[0], matrix, address(product))
    return product, checked(outcome)


def feed_forward(rows: Floats, tile: FfnTile) -> tuple[Floats, Outcome]:
    """Return a tile's part of down(activation(gate(rows)) * up(rows)).

    Returns: new [row_count, hidden_size], of no meaning unless DONE.
    """
    assert rows.shape[1] == tile.down.width
    part = np.empty(rows.shape, np.float32)
    rows = np.ascontiguousarray(rows)
    outcome = functions().shardmesh_feed_forward(address(rows), rows.shape[0], tile, address(part))
    return part, checked(outcome)


def attention(rows: Floats, tile: AttentionTile, segments: Sequence[Attention]) -> tuple[Floats, Outcome]:
    """Write the segments' keys and values where they belong; return the tile's part of the block's output.

    Args: rows: [row_count, hidden_size], the segments' one after another; segments: made by native_backend.py.
    Returns: new [row_count, hidden_size], of no meaning unless DONE; then keys and values may be half written.
    """
    assert rows.shape[1] == tile.output.width
    part = np.empty(rows.shape, np.float32)
    rows = np.ascontiguousarray(rows)
    array = (Attention * len(segments))(*segments)
    outcome = functions().shardmesh_attention(address(rows), rows.shape[0], tile, array, len(segments), address(part))
    return part, checked(outcome)


def from_page_cache(
    tiles: TileSource, tile_index: int, rows: Floats, compute: Callable[[CachedTile], tuple[Floats, Outcome]]
) -> Floats | None:
    """Return what `compute` makes of a tile that is in the page cache; None when its weights go through the window."""
    if not can_take_from_cache(rows):
        return None
    cached = tiles.begin_cached(tile_index)
    if cached is None:
        return None
    outcome = Outcome.NOT_CACHED
    try:
        part, outcome = compute(cached)
    finally:
        tiles.end_cached(tile_index, outcome, int(outcome is Outcome.DONE))
    return part if outcome is Outcome.DONE else None


def checked(outcome: int) -> Outcome:
    """Return what a kernel answered.

    Raises: ResourceError: no memory for what lies between two products; InternalError: shapes that do not fit, which
    those of one layout do.
    """
    if outcome == Outcome.NO_MEMORY:
        raise ResourceError("there is no memory for the rows of this round; send fewer at a time")
    if outcome == Outcome.REFUSED:
        raise InternalError("the kernels refuse a tile: its shapes do not fit each other; report it as a bug")
    return _OUTCOMES[outcome]
