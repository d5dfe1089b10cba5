"""Reads tiles from disk into given buffers, on a few threads; never decides what to read.

Covers: opening and checking the files, short reads, a tile's checksum at its first read, errors with a file's name.
Does not cover: order and addresses (window.py), waiting (tile_source.py), where checksums come from (manifest.py).

Threads: each reader thread takes one job at a time from a queue and owns that job's buffer until it has called `ended`.
The files belong to all readers together; the last reader to end closes them, so no read ever meets a reused descriptor.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InternalError, ShardmeshError, SliceCorrupt, SliceReadError
from common.machine.direct_io import BLOCK_BYTES, OpenedFile, forget, open_file
from common.weights.checksums import Checksum, Comparison
from common.weights.placement import ALIGNMENT_BYTES

logger = logging.getLogger(__name__)

ReadInto = Callable[[int, memoryview, int], int]
"""(file descriptor, buffer, file offset) -> bytes read, 0 at the file's end; raises OSError."""


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How tiles are read."""

    bypass_page_cache: bool = False
    """What is read leaves nothing in the page cache (common/machine/direct_io.py)."""
    reads_in_flight: int = 2
    """Reads asked of the disk at once: so many threads."""
    read_bytes: int = 16 << 20
    """One system call asks for no more, so that closing need not wait for a very large tile."""
    timeout_seconds: float = 60.0
    """How long a tile may be waited for."""

    def __post_init__(self) -> None:
        if self.reads_in_flight < 1:
            raise InternalError(f"{self.reads_in_flight} reads in flight; at least 1 is needed")
        if self.read_bytes < BLOCK_BYTES or self.read_bytes % BLOCK_BYTES:
            raise InternalError(f"reads of {self.read_bytes} bytes; a multiple of {BLOCK_BYTES} is needed")


@dataclass(frozen=True, kw_only=True)
class TileRange:
    """One tile on disk: whole pages of one file.

    Raises: SliceCorrupt: the range is not made of whole pages.
    """

    path: Path
    offset: int
    byte_count: int
    checksum: Checksum | None = None
    """What the bytes must give when they are read for the first time; None checks nothing."""

    def __post_init__(self) -> None:
        if self.offset < 0 or self.byte_count <= 0 or (self.offset | self.byte_count) % ALIGNMENT_BYTES:
            raise SliceCorrupt(f"{self.path}: a tile of {self.byte_count} bytes at {self.offset} is not made of whole "
                               f"pages of {ALIGNMENT_BYTES} bytes; make the slices again")  # fmt: skip


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Read from `offset` until `buffer` is full or the system returns less; the GIL is free meanwhile."""
    return os.preadv(fd, [buffer], offset)


class TileFiles:
    """The open files of one slice, each opened once.

    Raises: SliceReadError: a file cannot be opened or is not a regular file. SliceCorrupt: a file is too short.
    """

    def __init__(
        self, tiles: Sequence[TileRange], read_into: ReadInto = read_into, settings: ReadSettings | None = None
    ) -> None:
        self._read_into = read_into
        self._settings = settings or ReadSettings()
        self._is_stopping = False
        self._verified: set[tuple[Path, int]] = set()
        self._counting = threading.Lock()
        self.checksum_nanoseconds = 0
        """Processor time that comparing took, of all reader threads."""
        self.read_nanoseconds = 0
        """That system calls took which read, of all reader threads."""
        self._files: dict[Path, OpenedFile] = {}
        try:
            for tile in tiles:
                if tile.path not in self._files:
                    self._files[tile.path] = _open_regular(tile.path, self._settings.bypass_page_cache)
                _check_length(tile, os.fstat(self._files[tile.path].fd).st_size)
        except BaseException:
            self.close()
            raise

    def read(self, tile: TileRange, buffer: memoryview) -> None:
        """Fill `buffer` with the whole tile.

        Raises: SliceReadError: the disk reports an error, or `stop` was called.
                SliceCorrupt: the file ends too early, or its checksum differs.
        """
        file = self._files[tile.path]
        done_bytes = taken_nanoseconds = 0
        while done_bytes < tile.byte_count:
            if self._is_stopping:
                raise SliceReadError(f"{tile.path}: reading was stopped because the tiles were closed")
            part = buffer[done_bytes : min(done_bytes + self._settings.read_bytes, tile.byte_count)]
            offset = tile.offset + done_bytes
            started = time.perf_counter_ns()
            try:
                count = self._read_into(file.fd, part, offset)
            except OSError as error:
                raise _disk_error(tile.path, f"reading {len(part)} bytes at {offset}", error) from error
            taken_nanoseconds += time.perf_counter_ns() - started
            usable = count - count % BLOCK_BYTES if file.is_direct else count  # go on from a whole block
            if usable <= 0:
                _check_length(tile, offset + max(count, 0))
                raise SliceReadError(f"{tile.path}: the disk gives {count} of {len(part)} bytes at {offset}; "
                                     "check the disk and the file")  # fmt: skip
            done_bytes += usable
        forget(file, tile.offset, tile.byte_count)
        with self._counting:
            self.read_nanoseconds += taken_nanoseconds
        self._verify_once(tile, buffer)

    def is_verified(self, tile: TileRange) -> bool:
        """Tell whether the tile was read whole before and had its checksum, or has none."""
        return tile.checksum is None or (tile.path, tile.offset) in self._verified

    def descriptor(self, tile: TileRange) -> int:
        """Return the open file that the tile lies in; it stays open until the readers have ended."""
        return self._files[tile.path].fd

    def _verify_once(self, tile: TileRange, buffer: memoryview) -> None:
        """Compare a tile's checksum the first time it is read: a flipped byte must never be computed with."""
        if tile.checksum is None or self.is_verified(tile):
            return
        comparison = Comparison(tile.checksum)
        comparison.update(buffer[: tile.byte_count])
        with self._counting:
            self.checksum_nanoseconds += comparison.nanoseconds
        if not comparison.agrees():
            raise SliceCorrupt(f"{tile.path} is damaged (the {tile.checksum.kind} of {tile.byte_count} bytes at "
                               f"{tile.offset} differs); slice the model again with --split-bin")  # fmt: skip
        self._verified.add((tile.path, tile.offset))

    def stop(self) -> None:
        """Make reads end after the system call they are in."""
        self._is_stopping = True

    def close(self) -> None:
        """Close every file; no read may be running."""
        while self._files:
            os.close(self._files.popitem()[1].fd)


@dataclass(frozen=True, kw_only=True)
class ReadJob:
    """One tile to read into one buffer; `ticket` is whatever tells the caller which."""

    ticket: int
    tile: TileRange
    buffer: memoryview


class TileReaders:
    """Reader threads over `files`, which are closed with them.

    `ended(ticket, error)` is called on a reader thread once for each job; it must not raise.
    """

    def __init__(
        self, files: TileFiles, ended: Callable[[int, ShardmeshError | None], None], *, reader_count: int
    ) -> None:
        self._files = files
        self._ended = ended
        self._jobs: queue.SimpleQueue[ReadJob | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running_count = reader_count
        self._is_finishing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"tile-reader-{index}", daemon=True)
            for index in range(reader_count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: ReadJob) -> None:
        """Queue a job; jobs begin in the order they were submitted."""
        self._jobs.put(job)

    def finish(self) -> None:
        """Let the threads and files go once the jobs already queued have ended; does not wait."""
        with self._lock:
            if self._is_finishing:
                return
            self._is_finishing = True
        for _ in self._threads:
            self._jobs.put(None)

    def close(self, *, limit_seconds: float) -> None:
        """Stop and wait; a thread that hangs in the disk longer than the limit closes the files when it ends."""
        self._files.stop()
        self.finish()
        deadline = time.monotonic() + limit_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s hangs in a read; it ends with that read", thread.name)

    def _run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._ended(job.ticket, self._read(job))
                del job  # its view of the window must not outlive it while this thread idles
        finally:
            with self._lock:
                self._running_count -= 1
                is_last = not self._running_count
            if is_last:
                self._files.close()

    def _read(self, job: ReadJob) -> ShardmeshError | None:
        try:
            self._files.read(job.tile, job.buffer)
        except ShardmeshError as error:
            # Frames would keep the buffer, and with it the whole window, alive for as long as the error is.
            if error.__cause__ is not None:
                error.__cause__.__traceback__ = None
            return error.with_traceback(None)
        except Exception as error:  # the thread's edge: whoever waits for the tile must hear of it
            logger.exception("reading %s failed", job.tile.path)
            return InternalError(f"{job.tile.path}: reading failed in an unforeseen way: {error!r}")
        return None


def _open_regular(path: Path, bypass_page_cache: bool) -> OpenedFile:
    """Open a file; refuse a pipe or a device, which could block or never end."""
    try:
        opened = open_file(path, bypass_page_cache=bypass_page_cache)
    except OSError as error:
        raise _disk_error(path, "opening", error) from error
    if not stat.S_ISREG(os.fstat(opened.fd).st_mode):
        os.close(opened.fd)
        raise SliceReadError(f"{path}: not a regular file; make the slices again")
    return opened


def _check_length(tile: TileRange, file_bytes: int) -> None:
    needed_bytes = tile.offset + tile.byte_count
    if file_bytes < needed_bytes:
        raise SliceCorrupt(f"{tile.path}: cut short: {file_bytes} bytes where a tile needs {needed_bytes}; "
                           f"make the slices again")  # fmt: skip


def _disk_error(path: Path, action: str, error: OSError) -> SliceReadError:
    number = error.errno or 0
    name = errno.errorcode.get(number, "no errno")
    return SliceReadError(f"{path}: {action} failed: {os.strerror(number) if number else error} ({name}); "
                          f"check the disk and the file")  # fmt: skip
