"""Several layers for a few rows in one native call, where their weights are at hand: in memory, or in the page cache.

Covers: which layers that can be, what the call needs, keys and values announced before it.
Does not cover: the call itself (common/native/layers.c), many rows, which gain nothing, layers whose weights pass
through a window (layers.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from common.compute import matmul
from common.compute.residual import Residual
from common.compute.tile_products import can_take_from_cache, checked
from common.native.address import address, address_or_none
from common.native.library import LayerBlock, LayersModel, Outcome
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from shardnode.work.kv_cache import Segment
from shardnode.work.native_blocks import block_described, rows_described
from shardnode.work.slice_at_work import ShardNode


@dataclass(frozen=True, kw_only=True, slots=True)
class LayersDone:
    """What a call has done: layers, and for each of their blocks its nanoseconds."""

    layer_count: int
    block_nanoseconds: list[int]


class NativeLayers:
    """The layers of the only node of a plan."""

    def __init__(self, node: ShardNode, residual: Residual) -> None:
        self._node = node
        self._residual = residual
        spec = node.manifest.spec
        self._model = LayersModel(
            spec.hidden_size, spec.head_size, len(node.manifest.share.kv_heads(spec)), spec.norm_epsilon
        )
        self._blocks = (LayerBlock * (len(BLOCK_KINDS) * spec.layer_count))()
        self._kept: dict[int, object] = {}  # what the blocks of a layer point at; a layer that is here is ready
        self._is_cached: dict[int, bool] = {}  # whether some of its weights are to be had from the page cache

    def run(self, layers: range, segments: Sequence[Segment], hidden: Floats) -> LayersDone:
        """Run layers on the residual stream in place, as many of `layers` as can be run so; call with the lock held.

        Args: hidden: float32 [row_count, hidden_size], without gaps.
        Raises: ProtocolError, InputError: positions.
        """
        nothing = LayersDone(layer_count=0, block_nanoseconds=[])
        if len(hidden) > matmul.FEW_ROWS or not all(self._prepare(layer) for layer in layers):
            return nothing
        first_tile, tile_count = self._node.executor.tile_range(layers)
        is_cached = any(self._is_cached[layer] for layer in layers)
        if is_cached and (
            not can_take_from_cache(hidden) or self._node.tiles.begin_cached(first_tile, tile_count) is None
        ):
            return nothing
        done, outcome = 0, Outcome.NOT_CACHED
        nanoseconds = (ctypes.c_int64 * (len(BLOCK_KINDS) * len(layers)))()
        try:
            done, outcome = self._call(layers, segments, hidden, nanoseconds)
        finally:
            if is_cached:
                taken = self._node.executor.tile_range(range(done))[1]
                self._node.tiles.end_cached(first_tile, outcome, taken)
        return LayersDone(layer_count=done, block_nanoseconds=nanoseconds[: len(BLOCK_KINDS) * done])

    def _call(
        self,
        layers: range,
        segments: Sequence[Segment],
        hidden: Floats,
        nanoseconds: ctypes.Array[ctypes.c_int64],
    ) -> tuple[int, Outcome]:
        for own in segments:
            for layer in layers:
                own.sequence.extend(layer, own.first_position, own.row_count)
        tables = self._node.executor.row_tables(segments)
        rows = rows_described(segments, tables)
        self._node.executor.prepare_for(len(hidden))
        outcome = ctypes.c_int()
        first_block = ctypes.byref(self._blocks, ctypes.sizeof(LayerBlock) * len(BLOCK_KINDS) * layers.start)
        done: int = matmul.functions().shardmesh_run_layers(
            address(hidden), hidden.shape[0], self._model, ctypes.cast(first_block, ctypes.POINTER(LayerBlock)),
            layers.start, len(layers), rows, len(segments), nanoseconds, outcome,
        )  # fmt: skip
        return done, checked(outcome.value)

    def _prepare(self, layer: int) -> bool:
        """Point a layer's blocks at its tiles, once; tell False while some are not at hand."""
        if layer in self._kept:
            return True
        found = []
        for kind in BLOCK_KINDS:
            tiles = self._node.executor.tiles_at_hand(kind, layer)
            if tiles is None:
                return False
            found.append(tiles)
        first_tile, tile_count = self._node.executor.tile_range(range(layer, layer + 1))
        self._is_cached[layer] = not all(
            self._node.tiles.stays(tile_index) for tile_index in range(first_tile, first_tile + tile_count)
        )
        window = self._node.manifest.spec.sliding_windows[layer]
        kept = []
        for number, (kind, tiles) in enumerate(zip(BLOCK_KINDS, found, strict=True), start=len(BLOCK_KINDS) * layer):
            self._blocks[number], tile_array = block_described(kind, tiles, window, *self._vectors(kind, layer))
            kept.append(tile_array)
        self._kept[layer] = kept
        return True

    def _vectors(self, kind: str, layer: int) -> tuple[int | None, int | None]:
        vectors = self._residual.blocks[kind]
        late_bias = vectors.late_biases[layer] if vectors.late_biases else None
        return address(vectors.norms[layer]), address_or_none(late_bias)
