"""READ FIRST. One block: wait for its tiles, compute with each, add up, let each tile go.

    tile in the window? -> a tile as the backend wants it -> its part -> partial += ... -> release -> next tile
                ^                                                                                    |
                `--------------- the reader fills the room with the tiles that come next -----------'

Covers: the order of tiles, which weights the backend gets, time spent.
Does not cover: reading (common/weights), maths (common/compute/backend.py, rotary.py), messages (sessions/session.py).
Threads: one caller at a time; the node's lock sees to it (slice_at_work.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.compute.backend import FLOAT32, NATIVE, AttentionRows, Backend
from common.native.served import ReadyBlocks
from common.weights.manifest import SliceManifest
from common.weights.slice_format import ATTENTION, BLOCK_KINDS, FFN, TileLayout
from common.weights.stored_numbers import Floats
from common.weights.tile_source import TileSource
from common.weights.tile_tensors import TileTensors
from shardnode.work.cached_tiles import CachedTiles
from shardnode.work.kv_cache import Segment
from shardnode.work.native_blocks import NativeBlocks
from shardnode.work.row_tables import RowTables


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockOutput:
    """A rank's partial sum, float32 [row_count, hidden_size], and where its time went."""

    partial: Floats
    compute_nanoseconds: int
    tile_wait_nanoseconds: int


class Executor:
    """Computes the blocks of one slice."""

    def __init__(self, manifest: SliceManifest, tiles: TileSource, backend: Backend) -> None:
        self._spec = manifest.spec
        self._tiles = tiles
        self._backend = backend
        self.computes_here = backend.name == NATIVE
        """Whether the thread that calls works as long as its products do."""
        self.activations = FLOAT32
        """What the session whose turn it is computes with (common/compute/backend.py)."""
        self._layouts = manifest.block_layouts()
        self._attention_tiles, ffn_tiles = (len(self._layouts[kind][0].tiles) for kind in BLOCK_KINDS)
        self._tiles_per_layer = self._attention_tiles + ffn_tiles
        self._first_kv_head = next(iter(manifest.share.kv_heads(manifest.spec)), 0)
        self._row_tables = RowTables(manifest.spec, backend)
        self._cached = CachedTiles(manifest.spec, self._first_kv_head, tiles) if backend.name == NATIVE else None
        kv_head_count = len(manifest.share.kv_heads(manifest.spec))
        self._blocks = NativeBlocks(
            manifest.spec, kv_head_count, tiles, self._row_tables, self._first_tile, self.tiles_at_hand
        )  # fmt: skip
        self._weights: dict[str, TileTensors[Any]] = {
            ATTENTION: TileTensors(self._head_tile, tiles.stays),
            FFN: TileTensors(self._ffn_tile, tiles.stays),
        }

    def run(self, kind: str, layer: int, segments: Sequence[Segment], rows: Floats) -> BlockOutput:
        """Compute one block for all rows of a sweep.

        Args: rows: float32 [row_count, hidden_size], the segments' rows one after another.
        Raises: SliceReadError, SliceCorrupt: a tile cannot be had; ProtocolError, InputError: positions.
        """
        started = time.perf_counter_ns()
        waited = 0
        self.prepare_for(rows.shape[0])
        if self.computes_here and (whole := self._blocks.run(kind, layer, segments, rows)) is not None:
            return BlockOutput(
                partial=whole, compute_nanoseconds=time.perf_counter_ns() - started, tile_wait_nanoseconds=0
            )
        own_rows = self._backend.rows_in(rows)
        attended = self._attended(layer, segments) if kind == ATTENTION else None
        partial: Any = None
        for tile_index, layout in self._tiles_of(kind, layer):
            part = None
            if self._cached is not None:
                part = self._cached.part(kind, layer, tile_index, layout, attended, own_rows)
            if part is None:
                wait_started = time.perf_counter_ns()
                buffer = self._tiles.acquire(tile_index)
                waited += time.perf_counter_ns() - wait_started
                try:
                    tile = self._weights[kind].view(tile_index, layout, buffer)
                    part = self._part(tile, layer, attended, own_rows)
                finally:
                    self._tiles.release(tile_index)
            if partial is None:
                partial = part
            else:
                partial += part
        sums = np.zeros(rows.shape, np.float32) if partial is None else self._backend.rows_out(partial)
        elapsed = time.perf_counter_ns() - started
        return BlockOutput(partial=sums, compute_nanoseconds=elapsed - waited, tile_wait_nanoseconds=waited)

    @property
    def ready(self) -> ReadyBlocks | None:
        """What C computes without asking; None: nothing."""
        return self._blocks.ready if self.computes_here else None

    def tiles_at_hand(self, kind: str, layer: int) -> list[Any] | None:
        """Return a block's tiles for kernels that need nothing else; None unless all are at hand."""
        if self._cached is None:
            return None
        tiles: list[Any] = []
        for tile_index, _ in self._tiles_of(kind, layer):
            tile = self._weights[kind].kept(tile_index) or self._cached.known(tile_index)
            if tile is None:
                return None
            tiles.append(tile)
        return tiles

    def forget(self) -> None:
        """Let go of the weights that stay; call with the node's lock held, when nothing is computed any more."""
        self._blocks.forget()
        for weights in self._weights.values():
            weights.forget()

    def tile_range(self, layers: range) -> tuple[int, int]:
        """Return the first tile of some layers, and how many they have."""
        return layers.start * self._tiles_per_layer, len(layers) * self._tiles_per_layer

    def row_tables(self, segments: Sequence[Segment]) -> list[Any]:
        """Return the segments' rotary tables, as the backend has made them."""
        return self._row_tables.of(segments)

    def prepare_for(self, row_count: int) -> None:
        """Have what this thread computes next be of so many rows, and of the session whose turn it is."""
        self._backend.use_threads_for(row_count)
        self._backend.use_activations(self.activations)

    def _tiles_of(self, kind: str, layer: int) -> Iterator[tuple[int, TileLayout]]:
        """Yield index and layout of each tile of a block."""
        yield from enumerate(self._layouts[kind][layer].tiles, start=self._first_tile(kind, layer))

    def _first_tile(self, kind: str, layer: int) -> int:
        return layer * self._tiles_per_layer + (0 if kind == ATTENTION else self._attention_tiles)

    def _attended(self, layer: int, segments: Sequence[Segment]) -> list[AttentionRows]:
        """Announce the segments' rows to their sequences; return them for the backend."""
        attended = []
        for own, tables in zip(segments, self._row_tables.of(segments), strict=True):
            own.sequence.extend(layer, own.first_position, own.row_count)
            attended.append(AttentionRows(own.row_count, own.first_position, own.sequence.store, tables))
        return attended

    def _part(self, tile: Any, layer: int, attended: Sequence[AttentionRows] | None, rows: Any) -> Any:
        """Return what a tile in memory adds to the block's output."""
        if attended is None:
            return self._backend.feed_forward(rows, tile)
        return self._backend.attention(rows, tile, self._spec, layer, attended)

    def _head_tile(self, layout: TileLayout, buffer: memoryview) -> Any:
        return self._backend.head_tile(self._spec, layout, buffer, layout.kv_first - self._first_kv_head)

    def _ffn_tile(self, layout: TileLayout, buffer: memoryview) -> Any:
        return self._backend.ffn_tile(self._spec, layout, buffer)
