"""Sees the bytes of a tile as arrays, and keeps what is made of tiles that stay.

Covers: views without a copy, in the type that is stored.
Does not cover: reading the bytes (tile_source.py), what the arrays mean (slice_format.py), products with weights of
16 bits (common/compute/matmul.py), weights on a GPU (common/compute/torch_backend.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.stored_numbers import NUMPY_DTYPES, Stored

Weights = TypeVar("Weights")
Make = Callable[[TileLayout, memoryview], Weights]
"""Makes of a tile's bytes what is computed with."""


class TileTensors(Generic[Weights]):
    """What `make` makes of each tile: once of a tile that stays, each time of one that passes. For one thread."""

    def __init__(self, make: Make[Weights], stays: Callable[[int], bool]) -> None:
        """Args: stays: TileSource.stays."""
        self._make = make
        self._stays = stays
        self._kept: dict[int, tuple[Weights, memoryview]] = {}  # with the bytes: what is made may be addresses alone

    def view(self, tile_index: int, layout: TileLayout, buffer: memoryview) -> Weights:
        """Return what is made of the tile; valid until it is released, of a tile that stays until `forget`."""
        kept = self._kept.get(tile_index)
        if kept is not None:
            return kept[0]
        weights = self._make(layout, buffer)
        if self._stays(tile_index):
            self._kept[tile_index] = weights, buffer
        return weights

    def kept(self, tile_index: int) -> Weights | None:
        """Return what was made of a tile that stays; None before, and of one that passes."""
        kept = self._kept.get(tile_index)
        return None if kept is None else kept[0]

    def forget(self) -> None:
        """Let go of all that stays, and of its bytes; nobody may be computing with it."""
        self._kept.clear()


def stored_array(place: TensorPlace, buffer: memoryview) -> Stored:
    """Return what lies at `place` of a tile's bytes, as it is stored, without a copy."""
    array: Stored = np.ndarray(place.shape, NUMPY_DTYPES[place.dtype], buffer, place.offset)
    return array
