"""Sees the bytes of a tile as tensors, and keeps what is built over them.

Covers: views without a copy, in the type that is stored; float32 copies on a GPU.
Does not cover: reading the bytes (tile_source.py), what the tensors mean (slice_format.py), products with weights of
16 bits (common/matmul.py).
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
    """What `build` makes of each tile, made once for each place a tile can lie at. For one thread."""

    def __init__(self, device: torch.device, build: Build[Weights], *, resident: bool) -> None:
        """Prepare for tiles that are computed with on `device`.

        Args: resident: tiles never leave memory once they are read, so that copies on a GPU may stay too.
        """
        self._device = device
        self._build = build
        self._keeps_copies = resident
        self._views: dict[tuple[int, int], Weights] = {}
        self._copies: dict[int, Weights] = {}

    def view(self, tile_index: int, layout: TileLayout, buffer: memoryview) -> Weights:
        """Return what `build` makes of the tile, whose matrices are as stored on the CPU and float32 on a GPU.

        Valid until the tile is released.
        """
        if self._device.type != "cpu":
            return self._on_device(tile_index, layout, buffer)
        # A tile always comes back in one of two buffers, each one object for good (TileSource.acquire).
        key = (tile_index, id(buffer))
        weights = self._views.get(key)
        if weights is None:
            weights = self._views[key] = self._build(layout, _stored(layout, buffer))
        return weights

    def _on_device(self, tile_index: int, layout: TileLayout, buffer: memoryview) -> Weights:
        copy = self._copies.get(tile_index)
        if copy is None:
            tensors = {name: tensor.to(self._device).float() for name, tensor in _stored(layout, buffer).items()}
            copy = self._build(layout, tensors)
            if self._keeps_copies:
                self._copies[tile_index] = copy
        return copy


def _stored(layout: TileLayout, buffer: memoryview) -> dict[str, torch.Tensor]:
    return {
        place.name: torch.frombuffer(
            buffer, dtype=TORCH_DTYPES[place.dtype], count=math.prod(place.shape), offset=place.offset
        ).view(place.shape)
        for place in layout.tensors
    }
