"""Which tiles may kernels take from the page cache themselves, without the window, and which not?

Covers: that a tile was read and verified before, giving up for the rest of a cycle when the cache has let one go, files
that stay open as long as one is used.
Does not cover: the kernels (common/native/ranges.c), the window that all others go through (tile_source.py).

What the cache has is taken piece by piece while it is computed with: a copy into the window would go out to memory and
come back. Threads: `begin` and `end` belong to the caller's thread, `close` to any.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from common.native.library import Outcome
from common.native.lock import address_of, new_lock
from common.native.served import CachedBlock, SharedReads
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
        self._in_use = new_lock()
        self.shared = SharedReads(address_of(self._in_use), is_allowed and hasattr(os, "RWF_NOWAIT"))
        """What C begins and ends too (common/native/serving.c), if it can take the lock."""

    @property
    def bytes_total(self) -> int:
        """What was taken whole."""
        return int(self.shared.bytes_total)

    @property
    def tiles_total(self) -> int:
        """How many tiles were."""
        return int(self.shared.tiles_total)

    def block(self, first_tile: int, tile_count: int) -> CachedBlock:
        """Describe neighbouring tiles that all were taken before to C."""
        return CachedBlock(tile_count, self._bytes_of(first_tile, tile_count), first_tile == 0)

    def begin(self, tile_index: int, tile_count: int = 1) -> CachedTile | None:
        """Return where a tile is, the first of `tile_count` to be taken; `end` must follow. None: use the window.

        Until it was read through the window once, a tile is not verified. After one that was not in the cache, the
        window is better for the rest of the cycle: it reads ahead.
        """
        if not self.shared.is_allowed:
            return None
        if tile_index == 0:
            self.shared.has_given_up = False
        tiles = self._tiles[tile_index : tile_index + tile_count]
        if self.shared.has_given_up or not all(self._files.is_verified(tile) for tile in tiles):
            return None
        self._in_use.acquire()
        if self.shared.is_closed:
            self._in_use.release()
            return None
        return CachedTile(fd=self._files.descriptor(tiles[0]), offset=tiles[0].offset)

    def end(self, tile_index: int, outcome: Outcome, taken_count: int) -> None:
        """No tile is used any more. Args: outcome: what ended the taking; taken_count: how many were taken whole."""
        self.shared.bytes_total += self._bytes_of(tile_index, taken_count)
        self.shared.tiles_total += taken_count
        if outcome is Outcome.NEVER_CACHED:
            self.shared.is_allowed = False
        elif outcome is not Outcome.DONE:
            self.shared.has_given_up = True
        self._in_use.release()

    def close(self) -> None:
        """Hand out no more tiles; return when none is used, so that the files may be closed."""
        with self._in_use:
            self.shared.is_closed = True

    def _bytes_of(self, first_tile: int, tile_count: int) -> int:
        return sum(tile.byte_count for tile in self._tiles[first_tile : first_tile + tile_count])
