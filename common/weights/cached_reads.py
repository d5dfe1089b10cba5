"""Which tiles may kernels take from the page cache themselves, without the window, and which not?

Covers: that a tile was read and verified before, giving up for the rest of a cycle when the cache has let one go, files
that stay open as long as one is used.
Does not cover: the kernels (common/native/ranges.c), the window that all others go through (tile_source.py).

What the cache has is taken piece by piece while it is computed with: a copy into the window would go out to memory and
come back. Threads: `begin` and `end` belong to the caller's thread, `close` to any.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from common.native.library import Outcome
from common.weights.reader import TileFiles, TileRange


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedTile:
    """Where the page cache has a tile, if it has: an open file, and the tile's first byte in it."""

    fd: int
    offset: int


class CachedReads:
    """The tiles of one cycle, for kernels that read only what is in the page cache."""

    def __init__(self, tiles: Sequence[TileRange], files: TileFiles, *, is_allowed: bool) -> None:
        """Args: is_allowed: False where the cache is not used, where all tiles stay, and where tests inject faults."""
        self._tiles = tiles
        self._files = files
        self._is_allowed = is_allowed and hasattr(os, "RWF_NOWAIT")
        self._is_closed = False
        self._has_given_up = False
        self._in_use = threading.Lock()
        self.bytes_total = 0
        self.tiles_total = 0

    def begin(self, tile_index: int, tile_count: int = 1) -> CachedTile | None:
        """Return where a tile is, the first of `tile_count` to be taken; `end` must follow. None: use the window.

        Until it was read through the window once, a tile is not verified. After one that was not in the cache, the
        window is better for the rest of the cycle: it reads ahead.
        """
        if not self._is_allowed:
            return None
        if tile_index == 0:
            self._has_given_up = False
        tiles = self._tiles[tile_index : tile_index + tile_count]
        if self._has_given_up or not all(self._files.is_verified(tile) for tile in tiles):
            return None
        self._in_use.acquire()
        if self._is_closed:
            self._in_use.release()
            return None
        return CachedTile(fd=self._files.descriptor(tiles[0]), offset=tiles[0].offset)

    def end(self, tile_index: int, outcome: Outcome, taken_count: int) -> None:
        """No tile is used any more. Args: outcome: what ended the taking; taken_count: how many were taken whole."""
        self.bytes_total += sum(tile.byte_count for tile in self._tiles[tile_index : tile_index + taken_count])
        self.tiles_total += taken_count
        if outcome is Outcome.NEVER_CACHED:
            self._is_allowed = False
        elif outcome is not Outcome.DONE:
            self._has_given_up = True
        self._in_use.release()

    def close(self) -> None:
        """Hand out no more tiles; return when none is used, so that the files may be closed."""
        with self._in_use:
            self._is_closed = True
