"""A block of a few rows in one native call, where all of its weights are at hand: in memory, or in the page cache.

    tiles of a block, once -> LayerBlock        segments of a sweep, once -> SequenceRows       a call a block

Covers: what the call needs, and what of it is kept from round to round. Does not cover: the call itself
(common/native/layers.c), many rows and weights that pass through a window (executor.py), several layers at once
(native_layers.py).

Why: of a node's processor time for a token on four nodes, half was Python's, tile by tile, between the kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.compute import matmul
from common.compute.tile_products import can_take_from_cache, checked
from common.model.model_spec import ModelSpec
from common.native.address import address
from common.native.library import FfnTile, HeadTile, LayerBlock, LayersModel, Outcome, SequenceRows
from common.native.served import CachedBlock, ReadyBlocks
from common.weights.slice_format import ATTENTION, BLOCK_KINDS
from common.weights.stored_numbers import Floats
from common.weights.tile_source import TileSource
from shardnode.work.kv_cache import Segment, Segments
from shardnode.work.row_tables import RowTables


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
        first_tile: Callable[[str, int], int], at_hand: Callable[[str, int], list[Any] | None],
    ) -> None:  # fmt: skip
        """Args: kv_head_count: of this rank; first_tile: of a kind of block in a layer; at_hand: its tiles or None."""
        self._model = LayersModel(spec.hidden_size, spec.head_size, kv_head_count, spec.norm_epsilon)
        self._windows, self._tiles, self._tables = spec.sliding_windows, tiles, tables
        self._first_tile, self._at_hand = first_tile, at_hand
        self._ready: dict[tuple[str, int], _Block] = {}
        count = len(BLOCK_KINDS) * spec.layer_count
        self._places, self._cached = (ctypes.c_void_p * count)(), (CachedBlock * count)()
        self.ready = ReadyBlocks(ctypes.addressof(self._model), self._places, spec.layer_count, self._cached)
        """What of them C computes without asking; good as long as this is there."""
        if (reads := tiles.cached_reads) is not None and reads.shared.in_use:
            self.ready.reads = ctypes.pointer(reads.shared)

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
        ctypes.memset(self._places, 0, ctypes.sizeof(self._places))
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
        found = rows_described(segments, tables), tables
        if isinstance(segments, Segments):
            segments.described = found
        return found

    def _prepared(self, kind: str, layer: int) -> _Block | None:
        """Describe a block, once; None while some of its tiles are not at hand."""
        tiles = self._at_hand(kind, layer)
        if tiles is None:
            return None
        described, kept = block_described(kind, tiles, self._windows[layer])
        first, count = self._first_tile(kind, layer), len(tiles)
        stay = all(self._tiles.stays(index) for index in range(first, first + count))
        block = self._ready[kind, layer] = _Block(described, kept, first, count, not stay)
        place = len(BLOCK_KINDS) * layer + BLOCK_KINDS.index(kind)
        if not stay and (reads := self._tiles.cached_reads) is not None:
            self._cached[place] = reads.block(first, count)
        if stay or self.ready.reads:
            self._places[place] = ctypes.addressof(described)
        return block


def rows_described(segments: Sequence[Segment], tables: Sequence[Any]) -> Any:
    """Return neighbouring rows of sequences as kernels want them. Args: tables: of `segments`, which it points at."""
    return (SequenceRows * len(segments))(*[
        SequenceRows(
            own.row_count, own.first_position, own.sequence.capacity, own.sequence.store.address,
            table.cosine_address, table.sine_address, own.sequence.lengths_address,
        )
        for own, table in zip(segments, tables, strict=True)
    ])  # fmt: skip


def block_described(
    kind: str, tiles: Sequence[Any], sliding_window: int, norm: int | None = None, late_bias: int | None = None
) -> tuple[LayerBlock, object]:  # fmt: skip
    """Return a block as kernels want it, and what it points at beside the vectors.

    Args: tiles: in their order; norm, late_bias: addresses, for kernels that take the steps between blocks too.
    """
    if kind == ATTENTION:
        heads = (HeadTile * len(tiles))(*tiles)
        return LayerBlock(None, heads, len(tiles), norm, late_bias, sliding_window), heads
    ffn = (FfnTile * len(tiles))(*tiles)
    return LayerBlock(ffn, None, len(tiles), norm, late_bias, 0), ffn
