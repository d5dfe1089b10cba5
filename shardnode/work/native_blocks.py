"""A block of a few rows in one native call, where all of its weights are at hand: in memory, or in the page cache.

    tiles of a block, once -> LayerBlock        segments of a sweep, once -> SequenceRows       a call a block

Covers: what the call needs, and what of it is kept from round to round. Does not cover: the call itself
(common/native/layers.c), many rows and weights that pass through a window (executor.py), several layers at once
(native_layers.py).

Why: of a node's processor time for a token on four nodes, half was Python's, tile by tile, between the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.compute import matmul
from common.compute.tile_products import can_take_from_cache, checked
from common.model.model_spec import ModelSpec
from common.native.address import address
from common.native.library import FfnTile, HeadTile, LayerBlock, LayersModel, Outcome, SequenceRows
from common.weights.slice_format import ATTENTION
from common.weights.stored_numbers import Floats
from common.weights.tile_source import TileSource
from shardnode.work.kv_cache import Segment, Segments
from shardnode.work.row_tables import RowTables


class BlockTiles(NamedTuple):
    """A block's tiles for kernels that need nothing else."""

    first_tile: int
    tiles: list[Any]
    """In their order: HeadTile or FfnTile."""


class _Block(NamedTuple):
    """A block that is ready."""

    described: LayerBlock
    kept: object
    """What it points at."""
    first_tile: int
    tile_count: int
    is_cached: bool
    """Whether some of its weights are to be had from the page cache."""


class NativeBlocks:
    """The blocks of one slice. One caller at a time."""

    def __init__(
        self, spec: ModelSpec, kv_head_count: int, tiles: TileSource, tables: RowTables,
        at_hand: Callable[[str, int], BlockTiles | None],
    ) -> None:  # fmt: skip
        """Args: kv_head_count: of this rank; at_hand: gives the tiles of a kind of block in a layer, or None."""
        self._model = LayersModel(spec.hidden_size, spec.head_size, kv_head_count, spec.norm_epsilon)
        self._windows, self._tiles, self._tables, self._at_hand = spec.sliding_windows, tiles, tables, at_hand
        self._ready: dict[tuple[str, int], _Block] = {}

    def run(self, kind: str, layer: int, segments: Sequence[Segment], rows: Floats) -> Floats | None:
        """Return the block's part, new float32 [row_count, hidden_size]; None: not so, and nothing has happened.

        Args: rows: the block's normed input, float32 [row_count, hidden_size] without gaps; segments: whose they are.
        Raises: ProtocolError, InputError: positions.
        """
        if rows.shape[0] > matmul.FEW_ROWS:
            return None
        block = self._ready.get((kind, layer)) or self._prepared(kind, layer)
        if block is None or (block.is_cached and not can_take_from_cache(rows)):
            return None
        if kind == ATTENTION:
            for own in segments:
                own.sequence.extend(layer, own.first_position, own.row_count)
        if not block.is_cached:
            return self._call(block, layer, segments, rows)[0]
        if self._tiles.begin_cached(block.first_tile, block.tile_count) is None:
            return None
        outcome = Outcome.NOT_CACHED
        try:
            part, outcome = self._call(block, layer, segments, rows)
        finally:
            taken = block.tile_count if outcome is Outcome.DONE else 0
            self._tiles.end_cached(block.first_tile, outcome, taken)
        return part if outcome is Outcome.DONE else None

    def forget(self) -> None:
        """Let go of weights; nobody may be computing with them."""
        self._ready.clear()

    def _call(
        self, block: _Block, layer: int, segments: Sequence[Segment], rows: Floats
    ) -> tuple[Floats, Outcome]:  # fmt: skip
        sequences, _ = (segments.described if isinstance(segments, Segments) else None) or self._described(segments)
        part = np.empty(rows.shape, np.float32)
        outcome = matmul.functions().shardmesh_run_block(
            address(rows), rows.shape[0], self._model, block.described, layer, sequences, len(segments), address(part)
        )
        return part, checked(outcome)

    def _described(self, segments: Sequence[Segment]) -> tuple[Any, object]:
        """Describe a sweep's rows to the kernels; return that, and tables that it points at. Kept with the segments."""
        tables = self._tables.of(segments)
        made = (SequenceRows * len(segments))(*[
            SequenceRows(
                own.row_count, own.first_position, own.sequence.capacity, own.sequence.store.address,
                table.cosine_address, table.sine_address,
            )
            for own, table in zip(segments, tables, strict=True)
        ])  # fmt: skip
        if isinstance(segments, Segments):
            segments.described = made, tables
        return made, tables

    def _prepared(self, kind: str, layer: int) -> _Block | None:
        """Describe a block, once; None while some of its tiles are not at hand."""
        found = self._at_hand(kind, layer)
        if found is None or not found.tiles:
            return None
        count = len(found.tiles)
        if kind == ATTENTION:
            kept: Any = (HeadTile * count)(*found.tiles)
            described = LayerBlock(None, kept, count, None, None, self._windows[layer])
        else:
            kept = (FfnTile * count)(*found.tiles)
            described = LayerBlock(kept, None, count, None, None, 0)
        stay = all(self._tiles.stays(index) for index in range(found.first_tile, found.first_tile + count))
        block = self._ready[kind, layer] = _Block(described, kept, found.first_tile, count, not stay)
        return block
