"""Sees the bytes of a tile as tensors, and keeps what is built over them.

Covers: views without a copy, in the type that is stored; float32 copies on a GPU.
Does not cover: reading the bytes (tile_source.py), what the tensors mean (slice_format.py), products with weights of
16 bits (common/compute/matmul.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from common.weights.slice_format import TileLayout

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Weights = TypeVar("Weights")
Build = Callable[[TileLayout, dict[str, torch.Tensor]], Weights]
"""Makes what a kernel wants from a tile's tensors by name."""


class TileTensors(Generic[Weights]):
    """What `build` makes of each tile; made once of a tile that stays, each time of one that passes. For one thread.

    Making it anew takes microseconds beside a read of milliseconds; kept, it would lie scattered over the heap between
    what was freed since: 45 MB of a node with 830 tiles.
    """

    def __init__(self, device: torch.device, build: Build[Weights], stays: Callable[[int], bool]) -> None:
        """Prepare for tiles that are computed with on `device`. Args: stays: TileSource.stays."""
        self._device = device
        self._build = build
        self._stays = stays
        self._kept: dict[int, Weights] = {}

    def view(self, tile_index: int, layout: TileLayout, buffer: memoryview) -> Weights:
        """Return what `build` makes of the tile, whose matrices are as stored on the CPU and float32 on a GPU.

        Valid until the tile is released.
        """
        weights = self._kept.get(tile_index)
        if weights is None:
            tensors = _stored(layout, buffer)
            if self._device.type != "cpu":
                tensors = {name: tensor.to(self._device).float() for name, tensor in tensors.items()}
            weights = self._build(layout, tensors)
            if self._stays(tile_index):
                self._kept[tile_index] = weights
        return weights


def _stored(layout: TileLayout, buffer: memoryview) -> dict[str, torch.Tensor]:
    return {
        place.name: torch.frombuffer(
            buffer, dtype=TORCH_DTYPES[place.dtype], count=math.prod(place.shape), offset=place.offset
        ).view(place.shape)
        for place in layout.tensors
    }
