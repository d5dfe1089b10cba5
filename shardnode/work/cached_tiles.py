"""A tile's part of a block from weights that the page cache has, instead of a copy of them in the window.

Covers: what such a call of our kernels needs: where in a file matrices are, vectors read beside them.
Does not cover: the calls (common/compute/tile_products.py), which tiles may be taken so
(common/weights/cached_reads.py), the order of tiles (executor.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from common.compute.backend import AttentionRows
from common.compute.native_backend import attend
from common.compute.tile_products import (
    FFN_VECTORS,
    HEAD_VECTORS,
    feed_forward,
    ffn_tile,
    from_page_cache,
    head_tile,
    in_page_cache,
)
from common.model.model_spec import ModelSpec
from common.native.address import address_or_none
from common.native.library import FfnTile, HeadTile, Outcome
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import ATTENTION, TensorPlace, TileLayout
from common.weights.stored_numbers import Floats
from common.weights.tile_source import TileSource

VECTORS = HEAD_VECTORS + FFN_VECTORS


class CachedTiles:
    """The tiles of one slice, for rounds of few rows on the CPU."""

    def __init__(self, spec: ModelSpec, first_kv_head: int, tiles: TileSource) -> None:
        """Args: first_kv_head: of the model, the first that this rank holds."""
        self._spec = spec
        self._first_kv_head = first_kv_head
        self._tiles = tiles
        self._vector_places: dict[int, list[TensorPlace]] = {}  # by tile; what follows too
        self._made: dict[int, HeadTile | FfnTile] = {}

    def part(
        self, kind: str, layer: int, tile_index: int, layout: TileLayout,
        segments: Sequence[AttentionRows] | None, rows: Floats,
    ) -> Floats | None:  # fmt: skip
        """Return the tile's part of the block's output; None when its weights go through the window.

        Args: segments: of a block of attention, None in an FFN.
        """

        def compute(cached: CachedTile) -> tuple[Floats, Outcome]:
            tile = self._tile(kind, tile_index, layout, cached)
            vectors = self._read_vectors(tile_index, cached)  # alive until the kernel is done
            if isinstance(tile, FfnTile):
                tile.gate_up_bias = address_or_none(vectors.get("gate_up_bias"))
                return feed_forward(rows, tile)
            assert segments is not None
            tile.bias, tile.query_norm, tile.key_norm = [address_or_none(vectors.get(n)) for n in HEAD_VECTORS]
            return attend(rows, tile, self._spec, layer, segments)

        try:
            return from_page_cache(self._tiles, tile_index, rows, compute)
        except OSError:  # a vector is not in the cache, or cannot be read: the window tells what is wrong
            return None

    def known(self, tile_index: int) -> HeadTile | FfnTile | None:
        """Return a tile whose weights were taken from the page cache before and are all it has: no vectors."""
        return None if self._vector_places.get(tile_index) else self._made.get(tile_index)

    def _tile(self, kind: str, tile_index: int, layout: TileLayout, cached: CachedTile) -> HeadTile | FfnTile:
        """Return the tile for a kernel; its file and offset never change, so it is made once."""
        tile = self._made.get(tile_index)
        if tile is None:
            if kind == ATTENTION:
                first_kv_head = layout.kv_first - self._first_kv_head
                tile = head_tile(layout, first_kv_head, lambda place: in_page_cache(cached, place), _later)
            else:
                tile = ffn_tile(layout, self._spec.activation, lambda place: in_page_cache(cached, place), _later)
            self._made[tile_index] = tile
            self._vector_places[tile_index] = [place for place in layout.tensors if place.name in VECTORS]
        return tile

    def _read_vectors(self, tile_index: int, cached: CachedTile) -> dict[str, Floats]:
        """Read a tile's vectors, a few kilobytes. Raises: OSError: not in the cache."""
        vectors = {}
        for place in self._vector_places[tile_index]:
            data = bytearray(place.byte_count)
            if os.preadv(cached.fd, [data], cached.offset + place.offset, os.RWF_NOWAIT) != len(data):
                raise BlockingIOError
            vectors[place.name] = np.frombuffer(data, np.float32)
        return vectors


def _later(place: TensorPlace) -> None:
    """A vector is set when it has been read."""
