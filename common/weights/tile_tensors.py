"""Sees the bytes of a tile as float32 tensors.

Covers: views without a copy, upcasting of 16-bit weights into one scratch buffer, copies to a GPU.
Does not cover: reading the bytes (tile_source.py), what the tensors mean (slice_format.py).

float32 weights on the CPU are used where they lie. float16 and bfloat16 are widened (exactly) into a
buffer as large as the largest tile, so that nothing is allocated per token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from common.weights.slice_format import TileLayout

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TileTensors:
    """Views over tiles of one stored dtype. Not safe for several threads: there is one scratch buffer."""

    def __init__(self, dtype: str, device: torch.device, layouts: Sequence[TileLayout], *, resident: bool) -> None:
        """Prepare for tiles of these layouts, whose matrices have `dtype`.

        Args: resident: tiles never leave memory once they are read, so that copies on a GPU may stay too.
        """
        self._dtype = TORCH_DTYPES[dtype]
        self._device = device
        widens = self._dtype is not torch.float32 and device.type == "cpu"
        largest_bytes = max((layout.byte_count for layout in layouts), default=0)
        self._scratch = torch.empty(largest_bytes // self._dtype.itemsize if widens else 0, dtype=torch.float32)
        self._keeps_copies = resident
        self._views: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
        self._copies: dict[int, dict[str, torch.Tensor]] = {}

    @property
    def scratch_bytes(self) -> int:
        return self._scratch.numel() * self._scratch.itemsize

    def view(self, tile_index: int, layout: TileLayout, buffer: memoryview) -> dict[str, torch.Tensor]:
        """Return the tile's tensors by name, float32 on the device; valid until the tile is released.

        With 16-bit weights also only until the next call.
        """
        # A tile always comes back in one of two buffers, each one object for good (TileSource.acquire).
        key = (tile_index, id(buffer))
        stored = self._views.get(key)
        if stored is None:
            stored = self._views[key] = self._stored(layout, buffer)
        if self._device.type != "cpu":
            return self._on_device(tile_index, stored)
        if self._dtype is torch.float32:
            return stored
        return self._widened(layout, stored)

    def _stored(self, layout: TileLayout, buffer: memoryview) -> dict[str, torch.Tensor]:
        return {
            place.name: torch.frombuffer(
                buffer, dtype=TORCH_DTYPES[place.dtype], count=math.prod(place.shape), offset=place.offset
            ).view(place.shape)
            for place in layout.tensors
        }

    def _widened(self, layout: TileLayout, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors = {}
        for place in layout.tensors:
            source = stored[place.name]
            if source.dtype is torch.float32:
                tensors[place.name] = source
                continue
            start = place.offset // self._dtype.itemsize
            tensors[place.name] = self._scratch[start : start + source.numel()].view(place.shape).copy_(source)
        return tensors

    def _on_device(self, tile_index: int, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        copies = self._copies.get(tile_index)
        if copies is None:
            copies = {name: tensor.to(self._device).float() for name, tensor in stored.items()}
            if self._keeps_copies:
                self._copies[tile_index] = copies
        return copies
