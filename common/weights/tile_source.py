"""Hands tiles to the executor as views of memory, one at a time, in the order of the cycle.

Covers: waiting for a tile with a limit, what is kept in memory and counted.
Does not cover: which tile is read when (window.py), reading (reader.py), tensors over the views.

Threads: the caller's thread acquires and releases; reader threads call `_read_ended`. Both touch the window's state
machine only under `_lock`. A reader writes only to bytes that no acquired tile lies in (window.py's invariant).
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

from common.errors import ShardmeshError, SliceReadError
from common.native.library import Outcome
from common.weights.cached_reads import CachedReads, CachedTile
from common.weights.reader import ReadInto, ReadJob, ReadSettings, TileFiles, TileRange, TileReaders, read_into
from common.weights.window import MemoryWindow, StartRead

_read_into = read_into
"""Kept under a second name: parameters are called so too."""
__all__ = ["ResidentTiles", "StreamedTiles", "TileRange", "TileSource", "TileStats"]

CLOSE_LIMIT_SECONDS = 5.0
"""How long `close` waits for reads that hang in the disk."""


@dataclass(frozen=True, kw_only=True)
class TileStats:
    """Counters and sizes at one moment; window_bytes + resident_bytes is all that was allocated."""

    window_bytes: int
    """Bytes allocated for streaming, at most what was allowed; 0 when everything is resident."""
    resident_bytes: int
    """Bytes allocated for tiles that stay."""
    held_bytes: int
    """Bytes that hold a tile or are being read into, now."""
    peak_held_bytes: int
    bytes_read_total: int
    """Bytes of the readers' reads that ended well."""
    cached_bytes_total: int
    """Bytes that kernels took from the page cache themselves."""
    reads_total: int
    """Reads that ended, well or not; a tile that kernels took counts as one."""
    failed_reads_total: int
    wait_seconds_total: float
    """Time that `acquire` spent waiting."""
    checksum_nanoseconds: int
    """Processor time that checking tiles took when they were first read."""
    read_nanoseconds: int
    """That the disk took for what the readers asked, of all readers together; none for what kernels took."""
    reads_in_flight: int
    """Reads that were asked for and have not ended, now."""


class TileSource(Protocol):
    """What the executor sees of the weights. Used from one thread; at most one tile is acquired at a time."""

    def acquire(self, tile_index: int) -> memoryview:
        """Return the tile's bytes once they are in memory; valid until `release`.

        Acquiring in cycle order is what is prepared for; any other tile is possible, and read then.
        Raises: SliceReadError: the disk failed, did not answer in time, or the source is closed.
                SliceCorrupt: the file is cut short. After either, the next acquire tries again.
        """

    def release(self, tile_index: int) -> None:
        """Give the acquired tile back; its bytes may be overwritten at once."""

    def begin_cached(self, tile_index: int, tile_count: int = 1) -> CachedTile | None:
        """Return where kernels may find a tile, the first of `tile_count`, in the page cache; None: they may not.

        Instead of `acquire`, and `end_cached` must follow instead of `release`; whatever that is told, the tiles may be
        acquired then.
        """

    def end_cached(self, tile_index: int, outcome: Outcome, taken_count: int) -> None:
        """Give such tiles back and tell whether the cache had them, and how many were taken."""

    @property
    def cached_reads(self) -> CachedReads | None:
        """What C may begin and end itself, all tiles in one order; None: it has to ask."""

    def stays(self, tile_index: int) -> bool:
        """Tell whether the tile, once it is in memory, lies where it lies until `close`."""

    def close(self) -> None:
        """End the threads and close the files; who waits gets an error. May be called twice."""

    @property
    def stats(self) -> TileStats:
        """Return a snapshot."""


class StreamedTiles:
    """Tiles that pass through a window of `window_bytes`, read ahead by `settings.reads_in_flight` threads.

    Raises: WindowTooSmall: two neighbouring tiles do not fit.
            SliceReadError, SliceCorrupt: a file cannot be opened or is too short.
    """

    def __init__(
        self,
        tiles: Sequence[TileRange],
        *,
        window_bytes: int,
        settings: ReadSettings | None = None,
        read_into: ReadInto = read_into,
    ) -> None:
        settings = settings or ReadSettings()
        self._tiles = tuple(tiles)
        self._timeout_seconds = settings.timeout_seconds
        self._window = MemoryWindow(
            tile_bytes=[tile.byte_count for tile in tiles],
            window_bytes=window_bytes,
            reads_in_flight=settings.reads_in_flight,
        )
        region = _allocate(self._window.placement.region_bytes)
        self._views: tuple[memoryview, ...] = tuple(
            region[place.region_offset : place.region_end] for place in self._window.placement.places
        )
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._is_closed = False
        self._reading: dict[int, TileRange] = {}  # by ticket
        self._bytes_read_total = self._reads_total = self._failed_reads_total = 0
        self._wait_seconds_total = 0.0
        files = self._files = TileFiles(tiles, read_into, settings)
        self._cached = CachedReads(self._tiles, files, is_allowed=(
            read_into is _read_into and not settings.bypass_page_cache and not self._window.placement.keeps_everything
        ))  # fmt: skip
        self._readers = TileReaders(files, self._read_ended, reader_count=settings.reads_in_flight)
        with self._lock:
            self._submit(self._window.start())

    def acquire(self, tile_index: int) -> memoryview:
        """See TileSource."""
        with self._lock:
            if self._is_closed:
                raise _closed(self._tiles, tile_index)
            if tile_index != self._window.next_tile_index:
                self._submit(self._window.seek(tile_index))
            place_index = self._window.acquire(tile_index)
            if place_index is None:
                place_index = self._wait_for(tile_index)
            return self._views[place_index]

    def release(self, tile_index: int) -> None:
        """See TileSource."""
        with self._lock:
            self._submit(self._window.release(tile_index))

    def begin_cached(self, tile_index: int, tile_count: int = 1) -> CachedTile | None:
        """See TileSource."""
        return self._cached.begin(tile_index, tile_count)

    def end_cached(self, tile_index: int, outcome: Outcome, taken_count: int) -> None:
        """See TileSource."""
        self._cached.end(tile_index, outcome, taken_count)

    @property
    def cached_reads(self) -> CachedReads | None:
        """See TileSource."""
        return self._cached

    def stays(self, tile_index: int) -> bool:
        """See TileSource."""
        return self._window.placement.keeps_everything

    def close(self) -> None:
        """See TileSource. The memory goes when the last view or tensor over it goes."""
        self._cached.close()
        with self._lock:
            self._is_closed = True
            self._views = ()
            self._arrived.notify_all()
        self._readers.close(limit_seconds=CLOSE_LIMIT_SECONDS)

    def __enter__(self) -> StreamedTiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stats(self) -> TileStats:
        """See TileSource."""
        with self._lock:
            return TileStats(
                window_bytes=self._window.placement.region_bytes,
                resident_bytes=0,
                held_bytes=self._window.held_bytes,
                peak_held_bytes=self._window.peak_held_bytes,
                bytes_read_total=self._bytes_read_total,
                cached_bytes_total=self._cached.bytes_total,
                reads_total=self._reads_total + self._cached.tiles_total,
                failed_reads_total=self._failed_reads_total,
                wait_seconds_total=self._wait_seconds_total,
                checksum_nanoseconds=self._files.checksum_nanoseconds,
                read_nanoseconds=self._files.read_nanoseconds,
                reads_in_flight=len(self._reading),
            )

    def _wait_for(self, tile_index: int) -> int:
        """Wait, with `_lock` held, until the tile is acquired; return its place."""
        window = self._window
        start = time.monotonic()
        deadline = start + self._timeout_seconds
        try:
            while (place_index := window.acquire(tile_index)) is None:
                error = window.failure
                if error is not None:
                    self._submit(window.retry())
                    raise error
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0:
                    raise SliceReadError(f"{self._tiles[tile_index].path}: no answer from the disk within "
                                         f"{self._timeout_seconds:g} s; check the disk")  # fmt: skip
                self._arrived.wait(left_seconds)
                if self._is_closed:
                    raise _closed(self._tiles, tile_index)
            return place_index
        finally:
            self._wait_seconds_total += time.monotonic() - start

    def _submit(self, reads: Iterable[StartRead]) -> None:
        if self._is_closed:
            return
        for read in reads:
            tile = self._tiles[read.tile_index]
            self._reading[read.ticket] = tile
            self._readers.submit(ReadJob(ticket=read.ticket, tile=tile, buffer=self._views[read.place_index]))

    def _read_ended(self, ticket: int, error: ShardmeshError | None) -> None:
        """Tell the window and whoever waits; called on a reader thread."""
        with self._lock:
            self._reads_total += 1
            tile = self._reading.pop(ticket)
            if error is None:
                self._bytes_read_total += tile.byte_count
                self._submit(self._window.read_done(ticket))
            else:
                self._failed_reads_total += 1
                self._submit(self._window.read_failed(ticket, error))
            if self._window.needs_no_more_reads:
                self._readers.finish()
            self._arrived.notify_all()


class ResidentTiles(StreamedTiles):
    """All tiles in memory (`--memory-window 0`): read once in the background from the start, then never again.

    The threads and files are gone as soon as everything is read.
    """

    def __init__(
        self,
        tiles: Sequence[TileRange],
        *,
        settings: ReadSettings | None = None,
        read_into: ReadInto = read_into,
    ) -> None:
        super().__init__(
            tiles,
            window_bytes=sum(tile.byte_count for tile in tiles),
            settings=settings,
            read_into=read_into,
        )

    @property
    def stats(self) -> TileStats:
        """See TileSource."""
        streamed = super().stats
        return replace(streamed, window_bytes=0, resident_bytes=streamed.window_bytes)


def _allocate(byte_count: int) -> memoryview:
    """Return page-aligned memory of this process alone; the system adds pages as they are written."""
    pages = mmap.mmap(-1, max(byte_count, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: fewer faults while it fills, and kernels find its addresses sooner
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)[:byte_count]


def _closed(tiles: Sequence[TileRange], tile_index: int) -> SliceReadError:
    return SliceReadError(f"{tiles[tile_index].path}: not read, because the tiles were closed")
