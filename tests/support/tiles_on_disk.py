"""Small tile files of random bytes, disks that fail or hang, and a watch over readers that should have ended.

Covers: what the tests of common/weights/reader.py and common/weights/tile_source.py share.
Does not cover: slices of models.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.weights.placement import ALIGNMENT_BYTES
from common.weights.reader import TileRange, read_into
from common.weights.tile_source import TileSource
from tests.support.syncing import sync

PAGE = ALIGNMENT_BYTES
SIZES = (2, 5, 1, 5, 2, 3, 4)
"""Pages of the tiles, in order."""
LEAST_BYTES = 7 * PAGE
"""The smallest window for them."""


def write_tiles(directory: Path) -> list[TileRange]:
    """Write seven tiles into two files, none of them at its file's start."""
    source = random.Random(5)
    ranges: list[TileRange] = []
    for name, sizes in (("first.bin", SIZES[:4]), ("second.bin", SIZES[4:])):
        path = directory / name
        path.write_bytes(source.randbytes((1 + sum(sizes)) * PAGE))
        offset = PAGE
        for size in sizes:
            ranges.append(TileRange(path=path, offset=offset, byte_count=size * PAGE))
            offset += size * PAGE
    return ranges


def forget_files(paths: Sequence[Path]) -> None:
    """Make the system drop files from its page cache."""
    for path in paths:
        with path.open("rb") as file:
            sync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def end_readers() -> None:
    """Wait until every reader thread has ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("tile-reader"):
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} is left"


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """Fail when a reader thread or a file descriptor is left afterwards; an earlier test's may go meanwhile."""
    before = _descriptors()
    yield
    end_readers()
    assert _descriptors() <= before


def _descriptors() -> set[tuple[str, str]]:
    """Return this process's descriptors and, where the system tells, what each is of."""
    directory = next(path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path))
    found = set()
    for name in os.listdir(directory):
        try:
            found.add((name, os.readlink(f"{directory}/{name}")))
        except FileNotFoundError:  # that of the listing itself
            continue
        except OSError:  # macOS does not tell
            found.add((name, ""))
    return found


def content(tile: TileRange) -> bytes:
    """Return what the tile's file says."""
    return tile.path.read_bytes()[tile.offset : tile.offset + tile.byte_count]


def sweep(source: TileSource, tiles: list[TileRange]) -> None:
    """Use every tile in order and compare it with its file."""
    for index, tile in enumerate(tiles):
        assert bytes(source.acquire(index)) == content(tile)
        source.release(index)


def use(source: TileSource, tile_count: int, sweep_count: int) -> None:
    """Use every tile in order, without a look at the bytes."""
    for index in list(range(tile_count)) * sweep_count:
        source.acquire(index)
        source.release(index)


class FaultyDisk:
    """A read_into that fails at one file offset, so many times."""

    def __init__(self, offset: int, *, failure_count: int) -> None:
        self.offset = offset
        self.failures_left = failure_count

    def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        if offset == self.offset and self.failures_left:
            self.failures_left -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_into(fd, buffer, offset)


class HangingDisk:
    """A read_into that hangs in every read until `answer` is set."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked = threading.Event()

    def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        self.asked.set()
        assert self.answer.wait(60)
        return read_into(fd, buffer, offset)
