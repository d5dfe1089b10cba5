"""A tile's part of a block for a few rows, in one call of our own kernels.

Covers: what such a call needs: addresses of keys and values, rotary tables, weights in memory or in the page cache.
Does not cover: the calls (common/tile_products.py), many rows (kernels.py), the order of tiles (executor.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.model_spec import ModelSpec
from common.native.library import Attention, AttentionTile, FfnTile, Outcome
from common.tile_products import (
    AttentionVectors,
    HeadShape,
    address,
    attention,
    can_attend,
    can_take_from_cache,
    feed_forward,
    in_page_cache,
    segment,
)
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import ATTENTION, TensorPlace, TileLayout
from common.weights.tile_source import TileSource
from shardnode.kv_cache import SequenceKv

Tables = tuple[torch.Tensor, torch.Tensor]
"""Cosine and signed sine, each [row_count, 1, head_size]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Neighbouring rows of one sequence in a round."""

    sequence: SequenceKv
    first_position: int
    row_count: int
    rotary_length: int


class FewRows:
    """Computes tiles of one slice for up to MOST_NATIVE_ROWS rows."""

    def __init__(self, spec: ModelSpec, first_kv_head: int, tiles: TileSource) -> None:
        self._spec = spec
        self._first_kv_head = first_kv_head
        self._tiles = tiles
        self._vector_places: dict[int, dict[str, TensorPlace]] = {}  # by tile; what follows too
        self._cached_tiles: dict[int, AttentionTile | FfnTile] = {}

    def attention(
        self, layer: int, layout: TileLayout, tile: AttentionTile, vectors: AttentionVectors,
        segments: Sequence[Segment], tables: Tables, rows: torch.Tensor,
    ) -> tuple[torch.Tensor, Outcome]:  # fmt: skip
        """Return the attention tile's part of the block's output and whether the weights could be had."""
        own = self._native_segments(layer, layout, vectors, segments, tables)
        return attention(rows, tile, own)

    def from_page_cache(
        self, kind: str, layer: int, tile_index: int, layout: TileLayout,
        segments: Sequence[Segment], tables: Tables, rows: torch.Tensor,
    ) -> torch.Tensor | None:  # fmt: skip
        """Return the tile's part of the block's output; None when its weights go through the window."""
        if not can_take_from_cache(rows) or not self._has_kernels(kind, rows):
            return None
        cached = self._tiles.begin_cached(tile_index)
        if cached is None:
            return None
        outcome = Outcome.NOT_CACHED
        try:
            tile = self._cached_tile(kind, tile_index, layout, cached)
            vectors = self._read_vectors(tile_index, cached)
            if isinstance(tile, FfnTile):
                bias = vectors.get("gate_up_bias")
                tile.gate_up_bias = address(bias)
                part, outcome = feed_forward(rows, tile)
            else:
                own = AttentionVectors(
                    bias=vectors.get("qkv_bias"), query_norm=vectors.get("query_norm"), key_norm=vectors.get("key_norm")
                )
                part, outcome = self.attention(layer, layout, tile, own, segments, tables, rows)
        except OSError:  # a vector is not in the cache, or cannot be read: the window tells what is wrong
            return None
        finally:
            self._tiles.end_cached(tile_index, outcome, int(outcome is Outcome.DONE))
        return part if outcome is Outcome.DONE else None

    def cached_tile(self, tile_index: int) -> AttentionTile | FfnTile | None:
        """Return a tile whose weights were taken from the page cache before and are all it has: no vectors."""
        return None if self._vector_places.get(tile_index) else self._cached_tiles.get(tile_index)

    def _has_kernels(self, kind: str, rows: torch.Tensor) -> bool:
        if kind == ATTENTION:
            return can_attend(rows, self._spec.head_size)
        return self._spec.activation == "silu"

    def _cached_tile(
        self, kind: str, tile_index: int, layout: TileLayout, cached: CachedTile
    ) -> AttentionTile | FfnTile:
        """Return the tile for a kernel; its file and offset never change, so it is made once."""
        tile = self._cached_tiles.get(tile_index)
        if tile is None:
            places = {place.name: place for place in layout.tensors}
            names = ("qkv", "output") if kind == ATTENTION else ("gate_up", "down")
            matrices = [in_page_cache(cached, places.pop(name)) for name in names]
            tile = AttentionTile(*matrices) if kind == ATTENTION else FfnTile(*matrices, None)
            self._cached_tiles[tile_index] = tile
            self._vector_places[tile_index] = places
        return tile

    def _read_vectors(self, tile_index: int, cached: CachedTile) -> dict[str, torch.Tensor]:
        """Read a tile's vectors, a few kilobytes. Raises: OSError: not in the cache."""
        vectors = {}
        for name, place in self._vector_places[tile_index].items():
            data = bytearray(place.byte_count)
            if os.preadv(cached.fd, [data], cached.offset + place.offset, os.RWF_NOWAIT) != len(data):
                raise BlockingIOError
            vectors[name] = torch.frombuffer(data, dtype=torch.float32)
        return vectors

    def _native_segments(
        self, layer: int, layout: TileLayout, vectors: AttentionVectors, segments: Sequence[Segment], tables: Tables
    ) -> list[Attention]:
        cosine, sine = tables
        shape = HeadShape(
            query_count=layout.count, kv_count=layout.kv_count, head_size=self._spec.head_size,
            norm_epsilon=self._spec.norm_epsilon, sliding_window=self._spec.sliding_windows[layer],
        )  # fmt: skip
        first_head = layout.kv_first - self._first_kv_head
        native, first_row = [], 0
        for own in segments:
            stop_row = first_row + own.row_count
            native.append(segment(
                own.row_count, own.first_position, shape, vectors, own.sequence.places(layer, first_head),
                cosine[first_row:stop_row], sine[first_row:stop_row],
            ))  # fmt: skip
            first_row = stop_row
        return native
