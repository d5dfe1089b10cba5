"""READ FIRST. One block: wait for its tiles, run a kernel over each, add up, let each tile go.

    tile in the window? -> views over its bytes -> kernel -> partial += ... -> release -> next tile
                ^                                                                |
                `----- the reader fills the room with the tiles that come next --'

Covers: the order of tiles, which weights a kernel gets, time spent.
Does not cover: reading (common/weights), maths (kernels.py, rotary.py), messages (sessions/session.py).
Threads: one caller at a time; the node's lock sees to it (slice_at_work.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.compute.matmul import multiply, use_threads_for
from common.compute.tile_products import feed_forward, in_memory
from common.native.library import FfnTile, HeadTile
from common.weights.manifest import SliceManifest
from common.weights.slice_format import ATTENTION, BLOCK_KINDS, TileLayout
from common.weights.tile_source import TileSource
from common.weights.tile_tensors import TileTensors
from shardnode.work import kernels
from shardnode.work.few_rows import FewRows, Segment, Tables
from shardnode.work.rotary import Rotary

TABLE_BLOCK_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockOutput:
    """A rank's partial sum, float32 [row_count, hidden_size], and where its time went."""

    partial: torch.Tensor
    compute_nanoseconds: int
    tile_wait_nanoseconds: int


class Executor:
    """Computes the blocks of one slice in float32."""

    def __init__(self, manifest: SliceManifest, tiles: TileSource, device: torch.device) -> None:
        self._spec = manifest.spec
        self._tiles = tiles
        self._device = device
        self._layouts = {kind: manifest.layout(kind).tiles for kind in BLOCK_KINDS}
        self._tiles_per_layer = sum(len(layout) for layout in self._layouts.values())
        self._first_kv_head = next(iter(manifest.share.kv_heads(manifest.spec)), 0)
        self._few_rows = FewRows(manifest.spec, self._first_kv_head, tiles)
        self._rotary = Rotary(manifest.spec.rope, manifest.spec.head_size, device)
        self._tables: tuple[object, Tables] | None = None  # of the last sweep's rows
        self._block: tuple[int, Tables] | None = None  # of TABLE_BLOCK_ROWS neighbouring positions, by number
        self._native_kept: dict[int, HeadTile | FfnTile] = {}  # of tiles that stay
        # On the CPU tensors over a tile take microseconds to make; kept, they scatter over the heap: 45 MB a node.
        keeps = tiles.stays if device.type != "cpu" else _never
        self._attention_tiles = TileTensors(device, self._attention_weights, keeps)
        self._ffn_tiles = TileTensors(device, self._ffn_weights, keeps)

    @torch.inference_mode()
    def run(self, kind: str, layer: int, segments: Sequence[Segment], rows: torch.Tensor) -> BlockOutput:
        """Compute one block for all rows of a sweep.

        Args: rows: float32 [row_count, hidden_size], the segments' rows one after another.
        Raises: SliceReadError, SliceCorrupt: a tile cannot be had; ProtocolError, InputError: positions.
        """
        started = time.perf_counter_ns()
        waited = 0
        rows = rows.to(self._device)
        use_threads_for(rows.shape[0])
        if kind == ATTENTION:
            for segment in segments:
                segment.sequence.extend(layer, segment.first_position, segment.row_count)
        partial: torch.Tensor | None = None
        tables = self.rotary_tables(segments) if kind == ATTENTION else None
        for tile_index, layout in self._tiles_of(kind, layer):
            part = self._few_rows.from_page_cache(kind, layer, tile_index, layout, segments, tables, rows)
            if part is None:
                wait_started = time.perf_counter_ns()
                buffer = self._tiles.acquire(tile_index)
                waited += time.perf_counter_ns() - wait_started
                try:
                    part = self._part(kind, layer, tile_index, layout, buffer, segments, tables, rows)
                finally:
                    self._tiles.release(tile_index)
            partial = part if partial is None else partial.add_(part)
        if partial is None:
            partial = torch.zeros_like(rows)
        elapsed = time.perf_counter_ns() - started
        return BlockOutput(partial=partial.cpu(), compute_nanoseconds=elapsed - waited, tile_wait_nanoseconds=waited)

    def native_tiles(self, kind: str, layer: int) -> list[Any] | None:
        """Return a block's tiles for kernels that need nothing else; None unless all are at hand."""
        tiles: list[Any] = []
        for tile_index, _ in self._tiles_of(kind, layer):
            tile = self._native_kept.get(tile_index) or self._few_rows.cached_tile(tile_index)
            if tile is None:
                return None
            tiles.append(tile)
        return tiles

    def tile_range(self, layers: range) -> tuple[int, int]:
        """Return the first tile of some layers, and how many they have."""
        return layers.start * self._tiles_per_layer, len(layers) * self._tiles_per_layer

    def _tiles_of(self, kind: str, layer: int) -> Iterator[tuple[int, TileLayout]]:
        """Yield index and layout of each tile of a block."""
        first_tile = layer * self._tiles_per_layer + (0 if kind == ATTENTION else len(self._layouts[ATTENTION]))
        yield from enumerate(self._layouts[kind], start=first_tile)

    def _part(
        self, kind: str, layer: int, tile_index: int, layout: TileLayout, buffer: memoryview,
        segments: Sequence[Segment], tables: Tables | None, rows: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Return what a tile in memory adds to the block's output."""
        tile = self._native_tile(kind, tile_index, layout, buffer) if self._few_rows.has_kernels(kind, rows) else None
        if isinstance(tile, FfnTile):
            return feed_forward(rows, tile)[0]
        if tables is None:  # an FFN
            return kernels.feed_forward(rows, self._ffn_tiles.view(tile_index, layout, buffer))
        if tile is not None:
            return self._few_rows.attention(layer, tile, segments, tables, rows)[0]
        weights = self._attention_tiles.view(tile_index, layout, buffer)
        return self._attention(layer, layout, weights, segments, tables, rows)

    def _native_tile(self, kind: str, tile_index: int, layout: TileLayout, buffer: memoryview) -> HeadTile | FfnTile:
        """Return a tile for our kernels: made once of one that stays, each time of one that passes."""
        tile = self._native_kept.get(tile_index)
        if tile is None:
            start = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
            tile = self._few_rows.tile(
                kind, layout, lambda place: in_memory(start, place), lambda place: start + place.offset
            )
            if self._tiles.stays(tile_index):
                self._native_kept[tile_index] = tile
        return tile

    def _attention(
        self, layer: int, layout: TileLayout, weights: kernels.AttentionWeights, segments: Sequence[Segment],
        tables: Tables, rows: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        queries, keys, values = kernels.project_heads(rows, weights, *tables)
        contexts = []
        for segment, own in _with_rows(segments):
            all_keys, all_values = segment.sequence.write(
                layer, layout.kv_first - self._first_kv_head, segment.first_position,
                keys[own], values[own],
            )  # fmt: skip
            contexts.append(kernels.attend(
                queries[own], all_keys, all_values,
                segment.first_position, self._spec.sliding_windows[layer],
            ))  # fmt: skip
        context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
        return multiply(context, weights.output)

    def rotary_tables(self, segments: Sequence[Segment]) -> Tables:
        """Return the sweep's tables as kernels want them; a sweep's layers have the same rows, so the last are kept."""
        runs = tuple((s.first_position, s.row_count, s.rotary_length) for s in segments)
        if self._tables is None or self._tables[0] != runs:
            self._tables = (runs, self._row_of_block(runs) or self._made(runs))
        return self._tables[1]

    def _made(self, runs: tuple[tuple[int, int, int], ...]) -> Tables:
        cosine, sine = self._rotary.tables(runs)
        return cosine, kernels.signed(sine)

    def _row_of_block(self, runs: tuple[tuple[int, int, int], ...]) -> Tables | None:
        """Return one row's tables out of those of its neighbours: making ten tensors anew takes 0.3 ms a token."""
        (position, row_count, _) = runs[0]
        if len(runs) != 1 or row_count != 1 or not self._rotary.is_fixed:
            return None
        number, row = divmod(position, TABLE_BLOCK_ROWS)
        if self._block is None or self._block[0] != number:
            self._block = (number, self._made(((number * TABLE_BLOCK_ROWS, TABLE_BLOCK_ROWS, 0),)))
        cosine, sine = self._block[1]
        return cosine[row : row + 1], sine[row : row + 1]

    def _attention_weights(self, layout: TileLayout, tensors: dict[str, torch.Tensor]) -> kernels.AttentionWeights:
        return kernels.AttentionWeights(
            qkv=tensors["qkv"], qkv_bias=tensors.get("qkv_bias"),
            query_norm=tensors.get("query_norm"), key_norm=tensors.get("key_norm"), output=tensors["output"],
            query_count=layout.count, kv_count=layout.kv_count,
            head_size=self._spec.head_size, norm_epsilon=self._spec.norm_epsilon,
        )  # fmt: skip

    def _ffn_weights(self, layout: TileLayout, tensors: dict[str, torch.Tensor]) -> kernels.FfnWeights:
        return kernels.FfnWeights(
            gate_up=tensors["gate_up"], gate_up_bias=tensors.get("gate_up_bias"), down=tensors["down"],
            activation=self._spec.activation,
        )  # fmt: skip


def _never(tile_index: int) -> bool:
    return False


def _with_rows(segments: Sequence[Segment]) -> Iterator[tuple[Segment, slice]]:
    """Yield each segment with the rows of the round that are its own."""
    first_row = 0
    for segment in segments:
        stop_row = first_row + segment.row_count
        yield segment, slice(first_row, stop_row)
        first_row = stop_row
