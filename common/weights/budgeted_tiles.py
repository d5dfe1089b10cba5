"""Some tiles that stay, the others through a window, behind one TileSource.

Covers: which of the two a tile comes from. Does not cover: the choice (pinning.py), reading (tile_source.py).
Threads: as TileSource; the two sources have locks of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.native.library import Outcome
from common.weights.cached_reads import CachedReads, CachedTile
from common.weights.reader import ReadInto, ReadSettings, TileRange, read_into
from common.weights.tile_source import ResidentTiles, StreamedTiles, TileStats


class BudgetedTiles:
    """Resident and streamed tiles of one cycle.

    Raises: WindowTooSmall: two neighbouring streamed tiles do not fit.
            SliceReadError, SliceCorrupt: a file cannot be opened or is too short.
    """

    def __init__(
        self,
        tiles: Sequence[TileRange],
        *,
        resident: frozenset[int],
        window_bytes: int,
        settings: ReadSettings | None = None,
        read_into: ReadInto = read_into,
    ) -> None:
        staying = [index for index in range(len(tiles)) if index in resident]
        passing = [index for index in range(len(tiles)) if index not in resident]
        self._resident = ResidentTiles([tiles[index] for index in staying], settings=settings, read_into=read_into)
        try:
            self._streamed = StreamedTiles(
                [tiles[index] for index in passing], window_bytes=window_bytes, settings=settings, read_into=read_into
            )
        except BaseException:
            self._resident.close()
            raise
        self._where: list[tuple[StreamedTiles, int]] = [(self._resident, 0)] * len(tiles)
        for source, indices in ((self._resident, staying), (self._streamed, passing)):
            for position, index in enumerate(indices):
                self._where[index] = (source, position)

    def acquire(self, tile_index: int) -> memoryview:
        """See TileSource."""
        source, position = self._where[tile_index]
        return source.acquire(position)

    def release(self, tile_index: int) -> None:
        """See TileSource."""
        source, position = self._where[tile_index]
        source.release(position)

    def begin_cached(self, tile_index: int, tile_count: int = 1) -> CachedTile | None:
        """See TileSource."""
        source, position = self._where[tile_index]
        return source.begin_cached(position) if tile_count == 1 else None

    def end_cached(self, tile_index: int, outcome: Outcome, taken_count: int) -> None:
        """See TileSource."""
        source, position = self._where[tile_index]
        source.end_cached(position, outcome, taken_count)

    @property
    def cached_reads(self) -> CachedReads | None:
        """See TileSource; a block may have tiles of both sources."""
        return None

    def stays(self, tile_index: int) -> bool:
        """See TileSource."""
        source, position = self._where[tile_index]
        return source.stays(position)

    def close(self) -> None:
        """See TileSource."""
        self._resident.close()
        self._streamed.close()

    @property
    def stats(self) -> TileStats:
        """See TileSource."""
        resident, streamed = self._resident.stats, self._streamed.stats
        return TileStats(
            window_bytes=streamed.window_bytes,
            resident_bytes=resident.resident_bytes,
            held_bytes=resident.held_bytes + streamed.held_bytes,
            peak_held_bytes=resident.peak_held_bytes + streamed.peak_held_bytes,
            bytes_read_total=resident.bytes_read_total + streamed.bytes_read_total,
            cached_bytes_total=resident.cached_bytes_total + streamed.cached_bytes_total,
            reads_total=resident.reads_total + streamed.reads_total,
            failed_reads_total=resident.failed_reads_total + streamed.failed_reads_total,
            wait_seconds_total=resident.wait_seconds_total + streamed.wait_seconds_total,
            checksum_nanoseconds=resident.checksum_nanoseconds + streamed.checksum_nanoseconds,
            read_nanoseconds=resident.read_nanoseconds + streamed.read_nanoseconds,
            reads_in_flight=resident.reads_in_flight + streamed.reads_in_flight,
        )
