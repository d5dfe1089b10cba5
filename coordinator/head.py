"""The head: hidden states to logits, tile by tile through the coordinator's own window.

Covers: reading the head's tiles, matrix times rows, the window's size.
Does not cover: the norm before it (ends.py), sampling (sampler.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from common.matmul import kernels, multiply
from common.native.library import Matrix, Outcome
from common.row_steps import can_step
from common.tile_products import can_take_from_cache, in_memory, in_page_cache, multiply_matrix
from common.weights.manifest import HEAD_FILE, SliceManifest
from common.weights.open_tiles import open_tiles
from common.weights.slice_format import TileLayout
from common.weights.tile_source import TileStats
from common.weights.tile_tensors import TileTensors
from common.weights.weight_memory import WeightMemory

TILES_PER_BLOCK = 2
"""What counts as one block of the head for --memory-window: the whole head would be most of a small model."""


class Head:
    """The last matrix of the model. Close it to end its reader threads."""

    def __init__(self, directory: Path, manifest: SliceManifest, memory: WeightMemory, device: torch.device) -> None:
        layouts = manifest.layouts()
        self._layouts = layouts[HEAD_FILE].tiles
        self._vocab_size = manifest.spec.vocab_size
        largest_bytes = max(layout.byte_count for layout in self._layouts)
        self._tiles = open_tiles(directory, manifest, memory, block_bytes=TILES_PER_BLOCK * largest_bytes)
        self._device = device
        self._weights = TileTensors(device, _head_weight, self._tiles.stays)

    @property
    def stats(self) -> TileStats:
        return self._tiles.stats

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return float32 [row_count, vocab_size] for normed rows, float32 [row_count, hidden_size].

        Raises: SliceReadError, SliceCorrupt: a tile cannot be had.
        """
        rows = rows.to(self._device)
        logits = torch.empty((rows.shape[0], self._vocab_size), dtype=torch.float32)
        for tile_index, layout in enumerate(self._layouts):
            part = logits[:, layout.first : layout.first + layout.count]
            if not self._from_page_cache(tile_index, layout, rows, part):
                buffer = self._tiles.acquire(tile_index)
                try:
                    self._multiply(rows, self._weights.view(tile_index, layout, buffer), part)
                finally:
                    self._tiles.release(tile_index)
        return logits

    def _from_page_cache(self, tile_index: int, layout: TileLayout, rows: torch.Tensor, part: torch.Tensor) -> bool:
        """Write rows @ tile into `part` of the logits; tell False when its weights go through the window."""
        if not can_take_from_cache(rows):
            return False
        cached = self._tiles.begin_cached(tile_index)
        if cached is None:
            return False
        outcome = Outcome.NOT_CACHED
        try:
            outcome = _multiply_into(part, rows, in_page_cache(cached, layout.tensors[0]))
        finally:
            self._tiles.end_cached(tile_index, outcome, int(outcome is Outcome.DONE))
        return outcome is Outcome.DONE

    def _multiply(self, rows: torch.Tensor, weight: HeadWeight, part: torch.Tensor) -> None:
        if weight.native is not None and can_step(rows):
            _multiply_into(part, rows, weight.native)
        else:
            part.copy_(multiply(rows, weight.tensor))

    def close(self) -> None:
        self._tiles.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadWeight:
    """One tile [hidden_size, count], and the same for kernels of our own, where there are any."""

    tensor: torch.Tensor
    native: Matrix | None


def _head_weight(layout: TileLayout, tensors: dict[str, torch.Tensor]) -> HeadWeight:
    tensor = tensors["head"]
    is_native = tensor.is_cpu and kernels.functions is not None
    return HeadWeight(tensor=tensor, native=in_memory(tensor) if is_native else None)


def _multiply_into(part: torch.Tensor, rows: torch.Tensor, matrix: Matrix) -> Outcome:
    """Write rows @ matrix into `part`; one row of it has no gaps, so a kernel can write there itself."""
    if part.is_contiguous():
        return multiply_matrix(rows, matrix, part)[1]
    product, outcome = multiply_matrix(rows, matrix)
    if outcome is Outcome.DONE:
        part.copy_(product)
    return outcome
