"""Computes with our kernels: numpy arrays, addresses of them, and one call of C for each tile.

Covers: the seam of backend.py, on the CPU; keys and values in memory of which pages are taken as they are written.
Does not cover: the calls (tile_products.py, matmul.py), weights in the page cache (shardnode/work/cached_tiles.py),
several layers in one call (shardnode/work/native_layers.py).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.compute import matmul
from common.compute.backend import ACTIVATIONS, NATIVE, AttentionRows
from common.compute.tile_products import (
    MOST_HEAD_SIZE,
    attention,
    feed_forward,
    ffn_tile,
    head_tile,
    in_memory,
    multiply_matrix,
)
from common.errors import UnsupportedModel
from common.model.model_spec import KV_ITEM_BYTES, ModelSpec
from common.native.address import address
from common.native.library import Attention, FfnTile, HeadTile, Matrix, Outcome
from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.stored_numbers import Floats


class NativeTables(NamedTuple):
    """Rotary tables of neighbouring rows and where they lie, valid while this is."""

    cosine: Floats
    sine: Floats
    cosine_address: int
    sine_address: int


class NativeStore:
    """Keys and values of one sequence: float32 [layer, key or value, kv_head, position, head_size]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Raises: MemoryError: the system refuses."""
        _, _, self._head_count, capacity, head_size = shape
        byte_count = math.prod(shape) * KV_ITEM_BYTES
        try:
            # Not numpy's own memory, of which it wants the system to take 2 MB at a first touch.
            memory = mmap.mmap(-1, max(1, byte_count), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(str(error)) from error
        self.array: Floats = np.ndarray(shape, np.float32, memory)
        self.address = address(self.array)
        self.head_pitch = capacity * head_size
        """float32 numbers from one head to the next."""

    def places(self, layer: int, first_head: int) -> tuple[int, int]:
        """Return where a layer's keys and its values begin, from KV head `first_head` of this rank on."""
        head_bytes = self.head_pitch * KV_ITEM_BYTES
        keys = self.address + (2 * layer * self._head_count + first_head) * head_bytes
        return keys, keys + self._head_count * head_bytes


class NativeBackend:
    """See Backend."""

    name = NATIVE

    def __init__(self) -> None:
        """Raises: InputError: there are no kernels."""
        matmul.require_kernels()

    def check(self, spec: ModelSpec) -> None:
        if spec.head_size > MOST_HEAD_SIZE:
            raise UnsupportedModel(
                f"this model's heads have {spec.head_size} numbers, and the kernels take {MOST_HEAD_SIZE}; "
                "compute with torch: --backend torch"
            )

    def set_thread_count(self, thread_count: int, few_rows: int) -> None:
        matmul.set_thread_count(thread_count, few_rows=few_rows)

    def use_threads_for(self, row_count: int) -> None:
        matmul.use_threads_for(row_count)

    def use_activations(self, name: str) -> None:
        matmul.use_activations(ACTIVATIONS.index(name))

    def rows_in(self, rows: Floats) -> Floats:
        return rows

    def rows_out(self, rows: Floats) -> Floats:
        return rows

    def weight(self, place: TensorPlace, buffer: memoryview) -> Matrix:
        return in_memory(address(np.frombuffer(buffer, np.uint8)), place)

    def multiply(self, rows: Floats, weight: Matrix) -> Floats:
        return multiply_matrix(rows, weight)[0]

    def new_store(self, shape: tuple[int, ...]) -> NativeStore:
        return NativeStore(shape)

    def tables(self, cosine: Floats, sine: Floats) -> NativeTables:
        return NativeTables(cosine, sine, address(cosine), address(sine))

    def ffn_tile(self, spec: ModelSpec, layout: TileLayout, buffer: memoryview) -> FfnTile:
        start = address(np.frombuffer(buffer, np.uint8))
        return ffn_tile(
            layout, spec.activation, lambda place: in_memory(start, place), lambda place: start + place.offset
        )

    def head_tile(self, spec: ModelSpec, layout: TileLayout, buffer: memoryview, first_kv_head: int) -> HeadTile:
        start = address(np.frombuffer(buffer, np.uint8))
        return head_tile(
            layout, first_kv_head, lambda place: in_memory(start, place), lambda place: start + place.offset
        )

    def feed_forward(self, rows: Floats, tile: FfnTile) -> Floats:
        return feed_forward(rows, tile)[0]

    def attention(
        self, rows: Floats, tile: HeadTile, spec: ModelSpec, layer: int, segments: Sequence[AttentionRows]
    ) -> Floats:
        return attend(rows, tile, spec, layer, segments)[0]


def attend(
    rows: Floats, tile: HeadTile, spec: ModelSpec, layer: int, segments: Sequence[AttentionRows]
) -> tuple[Floats, Outcome]:
    """Return what Backend.attention does, and whether the tile's weights could be had: if not, it is of no meaning."""
    own = []
    for row_count, first_position, store, tables in segments:
        keys, values = store.places(layer, tile.first_kv_head)
        own.append(Attention(
            None, row_count, tile.query_count, tile.kv_count, spec.head_size, tile.bias, tile.query_norm,
            tile.key_norm, spec.norm_epsilon, tables.cosine_address, tables.sine_address, keys, values,
            store.head_pitch, first_position, spec.sliding_windows[layer], None,
        ))  # fmt: skip
    return attention(rows, tile.matrices, own)
