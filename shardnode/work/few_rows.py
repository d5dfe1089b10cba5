"""A tile's part of a block for a few rows, in one call of our own kernels.

Covers: what such a call needs: addresses of keys and values, rotary tables, weights in memory or in the page cache.
Does not cover: the calls (common/compute/tile_products.py), many rows (kernels.py), the order of tiles (executor.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from common.compute.row_steps import address, can_step
from common.compute.tile_products import (
    attention,
    can_attend,
    can_take_from_cache,
    feed_forward,
    in_page_cache,
    segment,
)
from common.model.model_spec import ModelSpec
from common.native.library import AttentionTile, FfnTile, HeadTile, Matrix, Outcome
from common.weights.cached_reads import CachedTile
from common.weights.slice_format import ATTENTION, TensorPlace, TileLayout
from common.weights.tile_source import TileSource
from shardnode.work.kv_cache import SequenceKv

HEAD_VECTORS = ("qkv_bias", "query_norm", "key_norm")
"""What an attention tile may have beside its matrices, in the order of HeadTile's fields."""
FFN_VECTORS = ("gate_up_bias",)
"""The same of an FFN tile."""
VECTORS = HEAD_VECTORS + FFN_VECTORS
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
        self._vector_places: dict[int, list[TensorPlace]] = {}  # by tile; what follows too
        self._cached_tiles: dict[int, HeadTile | FfnTile] = {}

    def tile(
        self, kind: str, layout: TileLayout, matrix: Callable[[TensorPlace], Matrix],
        vector: Callable[[TensorPlace], int | None],
    ) -> HeadTile | FfnTile:  # fmt: skip
        """Return a tile for our kernels. Args: matrix, vector: where what lies at a place of the tile is."""
        places = {place.name: place for place in layout.tensors}
        names = HEAD_VECTORS if kind == ATTENTION else FFN_VECTORS
        vectors = [vector(places[name]) if name in places else None for name in names]
        if kind != ATTENTION:
            return FfnTile(matrix(places["gate_up"]), matrix(places["down"]), *vectors, 0)
        matrices = AttentionTile(matrix(places["qkv"]), matrix(places["output"]))
        first_head = layout.kv_first - self._first_kv_head
        return HeadTile(matrices, *vectors, layout.count, layout.kv_count, first_head)

    def attention(
        self, layer: int, tile: HeadTile, segments: Sequence[Segment], tables: Tables, rows: torch.Tensor
    ) -> tuple[torch.Tensor, Outcome]:
        """Return the attention tile's part of the block's output and whether the weights could be had."""
        cosine, sine = tables
        native, first_row = [], 0
        for own in segments:
            stop_row = first_row + own.row_count
            native.append(segment(
                own.row_count, own.first_position, tile, own.sequence.places(layer, tile.first_kv_head),
                cosine[first_row:stop_row], sine[first_row:stop_row], norm_epsilon=self._spec.norm_epsilon,
                sliding_window=self._spec.sliding_windows[layer],
            ))  # fmt: skip
            first_row = stop_row
        return attention(rows, tile.matrices, native)

    def from_page_cache(
        self, kind: str, layer: int, tile_index: int, layout: TileLayout,
        segments: Sequence[Segment], tables: Tables | None, rows: torch.Tensor,
    ) -> torch.Tensor | None:  # fmt: skip
        """Return the tile's part of the block's output; None when its weights go through the window.

        Args: tables: of the rows in a block of attention, None in an FFN.
        """
        if not can_take_from_cache(rows) or not self.has_kernels(kind, rows):
            return None
        cached = self._tiles.begin_cached(tile_index)
        if cached is None:
            return None
        outcome = Outcome.NOT_CACHED
        try:
            tile = self._cached_tile(kind, tile_index, layout, cached)
            vectors = self._read_vectors(tile_index, cached)  # alive until the kernel is done
            if isinstance(tile, FfnTile):
                tile.gate_up_bias = address(vectors.get("gate_up_bias"))
                part, outcome = feed_forward(rows, tile)
            elif tables is not None:
                tile.bias, tile.query_norm, tile.key_norm = [address(vectors.get(name)) for name in HEAD_VECTORS]
                part, outcome = self.attention(layer, tile, segments, tables, rows)
        except OSError:  # a vector is not in the cache, or cannot be read: the window tells what is wrong
            return None
        finally:
            self._tiles.end_cached(tile_index, outcome, int(outcome is Outcome.DONE))
        return part if outcome is Outcome.DONE else None

    def has_kernels(self, kind: str, rows: torch.Tensor) -> bool:
        """Tell whether there are kernels of our own for such rows of such a block."""
        if kind == ATTENTION:
            return can_attend(rows, self._spec.head_size)
        return can_step(rows) and self._spec.activation == "silu"

    def cached_tile(self, tile_index: int) -> HeadTile | FfnTile | None:
        """Return a tile whose weights were taken from the page cache before and are all it has: no vectors."""
        return None if self._vector_places.get(tile_index) else self._cached_tiles.get(tile_index)

    def _cached_tile(self, kind: str, tile_index: int, layout: TileLayout, cached: CachedTile) -> HeadTile | FfnTile:
        """Return the tile for a kernel; its file and offset never change, so it is made once."""
        tile = self._cached_tiles.get(tile_index)
        if tile is None:
            tile = self.tile(kind, layout, lambda place: in_page_cache(cached, place), lambda place: None)
            self._cached_tiles[tile_index] = tile
            self._vector_places[tile_index] = [place for place in layout.tensors if place.name in VECTORS]
        return tile

    def _read_vectors(self, tile_index: int, cached: CachedTile) -> dict[str, torch.Tensor]:
        """Read a tile's vectors, a few kilobytes. Raises: OSError: not in the cache."""
        vectors = {}
        for place in self._vector_places[tile_index]:
            data = bytearray(place.byte_count)
            if os.preadv(cached.fd, [data], cached.offset + place.offset, os.RWF_NOWAIT) != len(data):
                raise BlockingIOError
            vectors[place.name] = torch.frombuffer(data, dtype=torch.float32)
        return vectors
