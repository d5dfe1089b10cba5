"""The head: hidden states to logits, tile by tile through the coordinator's own window.

Covers: reading the head's tiles, matrix times rows, the window's size.
Does not cover: the norm before it (ends.py), sampling (sampler.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.compute.backend import FLOAT32, NATIVE, Backend
from common.compute.tile_products import from_page_cache, in_page_cache, multiply_matrix
from common.weights.manifest import HEAD_FILE, SliceManifest
from common.weights.open_tiles import open_tiles
from common.weights.slice_format import TileLayout
from common.weights.stored_numbers import Floats
from common.weights.tile_source import TileStats
from common.weights.tile_tensors import TileTensors
from common.weights.weight_memory import WeightMemory

TILES_PER_BLOCK = 2
"""What counts as one block of the head for --memory-window: the whole head would be most of a small model."""


class Head:
    """The last matrix of the model. Close it to end its reader threads."""

    def __init__(
        self, directory: Path, manifest: SliceManifest, memory: WeightMemory, backend: Backend,
        activations: str = FLOAT32,
    ) -> None:  # fmt: skip
        """Args: activations: what rows are in its products (common/compute/backend.py)."""
        layouts = manifest.layouts()
        self._layouts = layouts[HEAD_FILE].tiles
        self._vocab_size = manifest.spec.vocab_size
        largest_bytes = max(layout.byte_count for layout in self._layouts)
        self._tiles = open_tiles(directory, manifest, memory, block_bytes=TILES_PER_BLOCK * largest_bytes)
        self._backend, self._activations = backend, activations
        self._weights = TileTensors(self._weight, self._tiles.stays)

    @property
    def stats(self) -> TileStats:
        return self._tiles.stats

    def logits(self, rows: Floats) -> Floats:
        """Return float32 [row_count, vocab_size] for normed rows, float32 [row_count, hidden_size].

        Raises: SliceReadError, SliceCorrupt: a tile cannot be had.
        """
        logits = np.empty((rows.shape[0], self._vocab_size), np.float32)
        self._backend.use_activations(self._activations)
        own_rows = self._backend.rows_in(rows)
        for tile_index, layout in enumerate(self._layouts):
            part = self._from_page_cache(tile_index, layout, rows)
            if part is None:
                buffer = self._tiles.acquire(tile_index)
                try:
                    weight = self._weights.view(tile_index, layout, buffer)
                    part = self._backend.rows_out(self._backend.multiply(own_rows, weight))
                finally:
                    self._tiles.release(tile_index)
            logits[:, layout.first : layout.first + layout.count] = part
        return logits

    def _from_page_cache(self, tile_index: int, layout: TileLayout, rows: Floats) -> Floats | None:
        """Return rows @ tile; None when its weights go through the window."""
        if self._backend.name != NATIVE:
            return None
        return from_page_cache(
            self._tiles, tile_index, rows,
            lambda cached: multiply_matrix(rows, in_page_cache(cached, layout.tensors[0])),
        )  # fmt: skip

    def _weight(self, layout: TileLayout, buffer: memoryview) -> Any:
        return self._backend.weight(layout.tensors[0], buffer)

    def close(self) -> None:
        self._tiles.close()
