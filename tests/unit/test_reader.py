"""Do tiles come from real files whole, in time, or with an error that names the file?

Covers: reader.py and tile_source.py with real files, injected faults, ending.
Does not cover: the order of reads under every sequence of events (tests/property/test_window.py).
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import InternalError, SliceCorrupt, SliceReadError, WindowTooSmall
from common.weights.reader import TileRange, read_into
from common.weights.tile_source import ResidentTiles, StreamedTiles, TileSource

PAGE = 4096
SIZES = (2, 5, 1, 5, 2, 3, 4)
"""Pages of the tiles, in order."""
LEAST_BYTES = 7 * PAGE


@pytest.fixture
def tiles(tmp_path: Path) -> list[TileRange]:
    """Seven tiles of random bytes in two files, one of them not at its file's start."""
    source = random.Random(5)
    ranges: list[TileRange] = []
    for name, sizes in (("first.bin", SIZES[:4]), ("second.bin", SIZES[4:])):
        path = tmp_path / name
        path.write_bytes(source.randbytes((1 + sum(sizes)) * PAGE))
        offset = PAGE
        for size in sizes:
            ranges.append(TileRange(path=path, offset=offset, byte_count=size * PAGE))
            offset += size * PAGE
    return ranges


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    """Fail a test after which a reader thread or a file descriptor is left."""
    fd_directory = next(path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path))
    threads_before, fds_before = threading.active_count(), len(os.listdir(fd_directory))
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("tile-reader"):
            thread.join(10)
    assert threading.active_count() == threads_before
    assert len(os.listdir(fd_directory)) == fds_before


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


def test_three_sweeps_through_the_least_window_give_the_files_bytes(tiles: list[TileRange]) -> None:
    """Every tile is right each time, and no more than the window is ever held or allocated."""
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES) as source:
        for _ in range(3):
            sweep(source, tiles)
        stats = source.stats
    assert stats.peak_held_bytes <= stats.window_bytes <= LEAST_BYTES
    assert stats.resident_bytes == 0
    assert stats.reads_total >= 3 * len(tiles)
    assert stats.bytes_read_total >= 3 * sum(SIZES) * PAGE


def test_a_window_that_holds_the_cycle_reads_each_tile_once(tiles: list[TileRange]) -> None:
    """After the first sweep the files are closed and nothing is read again."""
    with StreamedTiles(tiles, window_bytes=1 << 20) as source:
        for _ in range(3):
            sweep(source, tiles)
        assert source.stats.reads_total == len(tiles)
        assert source.stats.window_bytes == sum(SIZES) * PAGE


def test_resident_tiles_are_read_once_and_counted_as_resident(tiles: list[TileRange]) -> None:
    """With everything in memory there is no window, and reading ends by itself."""
    source = ResidentTiles(tiles)
    for _ in range(3):
        sweep(source, tiles)
    stats = source.stats
    assert (stats.window_bytes, stats.resident_bytes) == (0, sum(SIZES) * PAGE)
    assert stats.reads_total == len(tiles)
    for thread in threading.enumerate():
        if thread.name.startswith("tile-reader"):
            thread.join(10)
            assert not thread.is_alive()
    source.close()


def test_the_same_place_gives_the_same_view(tiles: list[TileRange]) -> None:
    """A tile has at most two addresses, page-aligned ones, so what is built over a view can be cached."""
    seen: dict[int, set[int]] = {}
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES) as source:
        for _ in range(6):
            for index in range(len(tiles)):
                view = source.acquire(index)
                assert not view.readonly
                assert view.contiguous
                seen.setdefault(index, set()).add(id(view))
                source.release(index)
    assert all(len(views) <= 2 for views in seen.values())


def test_tiles_may_be_acquired_out_of_order(tiles: list[TileRange]) -> None:
    """An abandoned sweep, a skipped tile and a step back all give the right bytes."""
    order = random.Random(7).choices(range(len(tiles)), k=200)
    for window_bytes in (LEAST_BYTES, 2 * LEAST_BYTES, 1 << 20):
        with StreamedTiles(tiles, window_bytes=window_bytes) as source:
            for index in order:
                assert bytes(source.acquire(index)) == content(tiles[index])
                source.release(index)


def test_short_reads_are_continued(tiles: list[TileRange]) -> None:
    """A system call that returns less than asked for is no error."""

    def read_a_little(fd: int, buffer: memoryview, offset: int) -> int:
        return read_into(fd, buffer[:1000], offset)

    with StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=read_a_little) as source:
        sweep(source, tiles)


def test_a_disk_error_names_the_file_and_is_told_at_each_try(tiles: list[TileRange]) -> None:
    """EIO reaches who waits for that tile, once for each read that failed; then the tile comes right."""
    disk = FaultyDisk(tiles[3].offset, failure_count=3)
    with StreamedTiles(tiles[:4], window_bytes=LEAST_BYTES, read_into=disk.read) as source:
        sweep(source, tiles[:3])
        for _ in range(3):
            with pytest.raises(SliceReadError, match=r"first\.bin: reading .* Input/output error \(EIO\)"):
                source.acquire(3)
        assert bytes(source.acquire(3)) == content(tiles[3])
        source.release(3)
        assert source.stats.failed_reads_total == 3
        sweep(source, tiles[:4])


def test_a_failure_does_not_poison_the_next_sweep(tiles: list[TileRange]) -> None:
    """What failed in an abandoned sweep is read again in the next one, and not reported there."""
    disk = FaultyDisk(tiles[3].offset, failure_count=1_000_000)
    with StreamedTiles(tiles[:4], window_bytes=LEAST_BYTES, read_into=disk.read) as source:
        sweep(source, tiles[:3])
        with pytest.raises(SliceReadError):
            source.acquire(3)
        disk.failures_left = 0
        for _ in range(2):
            sweep(source, tiles[:4])


def test_a_resident_tile_that_failed_is_read_again(tiles: list[TileRange]) -> None:
    """Without a window, too, a failure is told and then tried again."""
    disk = FaultyDisk(tiles[0].offset, failure_count=1)
    with ResidentTiles(tiles[:3], read_into=disk.read) as source:
        with pytest.raises(SliceReadError, match="EIO"):
            source.acquire(0)
        sweep(source, tiles[:3])


def test_a_fault_nobody_foresaw_reaches_who_waits(tiles: list[TileRange]) -> None:
    """A bug in reading is an InternalError for the caller, not a reader thread that is gone."""

    def fail(fd: int, buffer: memoryview, offset: int) -> int:
        raise ValueError("no such thing")

    with StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=fail) as source:
        for _ in range(3):
            with pytest.raises(InternalError, match=r"first\.bin.*no such thing"):
                source.acquire(0)


def test_a_file_cut_short_is_corrupt(tiles: list[TileRange]) -> None:
    """At the start, and when it happens later."""
    whole = tiles[6].path.read_bytes()
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES) as source:
        sweep(source, tiles)
        os.truncate(tiles[6].path, len(whole) - 1)
        with pytest.raises(SliceCorrupt, match=r"second\.bin: cut short"):
            use(source, len(tiles), 3)  # more than once, for the tile may have been read before the cut
        with pytest.raises(SliceCorrupt, match=r"second\.bin: cut short"):
            StreamedTiles(tiles, window_bytes=LEAST_BYTES)
        tiles[6].path.write_bytes(whole)
        sweep(source, tiles)


def test_a_disk_that_hangs_is_an_error_in_time_and_recovers(tiles: list[TileRange]) -> None:
    """Each acquire ends with an error after the limit; when the disk answers again, tiles come right."""
    disk = HangingDisk()
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES, timeout_seconds=0.01, read_into=disk.read) as source:
        for index in (0, 1, 5, 0):
            with pytest.raises(SliceReadError, match=r"no answer from the disk within 0\.01 s"):
                source.acquire(index)
        assert source.stats.wait_seconds_total >= 0.04
        assert source.stats.peak_held_bytes <= LEAST_BYTES
        source._timeout_seconds = 60.0
        disk.answer.set()
        sweep(source, tiles)


def test_closing_wakes_who_waits(tiles: list[TileRange]) -> None:
    """An acquire that waits when the source is closed ends with an error that says so."""
    disk = HangingDisk()
    source = StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=disk.read)
    errors: list[BaseException] = []

    def wait_for_the_first_tile() -> None:
        try:
            source.acquire(0)
        except SliceReadError as error:
            errors.append(error)
            disk.answer.set()

    waiter = threading.Thread(target=wait_for_the_first_tile)
    waiter.start()
    assert disk.asked.wait(60)
    source.close()
    waiter.join(60)
    assert "closed" in str(errors[0])
    source.close()
    with pytest.raises(SliceReadError, match="closed"):
        source.acquire(0)


def test_closing_while_the_disk_hangs_does_not_wait_for_it(
    tiles: list[TileRange], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The hanging reader closes the files itself when its read ends."""
    monkeypatch.setattr("common.weights.tile_source.CLOSE_LIMIT_SECONDS", 0.01)
    disk = HangingDisk()
    source = StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=disk.read)
    assert disk.asked.wait(60)
    source.close()
    assert "hangs in a read" in caplog.text
    disk.answer.set()


def test_a_view_outlives_close_until_it_is_dropped(tiles: list[TileRange]) -> None:
    """A tensor over a view never points to memory that is gone; without one the memory is freed at once."""
    source = StreamedTiles(tiles, window_bytes=LEAST_BYTES)
    view = source.acquire(0)
    source.release(0)
    source.close()
    assert len(bytes(view)) == tiles[0].byte_count
    owner = view.obj
    assert isinstance(owner, mmap.mmap)
    with pytest.raises(BufferError):
        owner.close()
    gc.disable()
    try:
        del view
        owner.close()
    finally:
        gc.enable()


def test_files_that_are_not_plain_files_are_refused(tiles: list[TileRange], tmp_path: Path) -> None:
    """A missing file, a link, a directory and a pipe are errors that name them; none blocks or leaks."""
    (tmp_path / "link.bin").symlink_to(tiles[0].path)
    (tmp_path / "directory.bin").mkdir()
    os.mkfifo(tmp_path / "pipe.bin")
    for name in ("missing.bin", "link.bin", "directory.bin", "pipe.bin"):
        bad = TileRange(path=tmp_path / name, offset=0, byte_count=PAGE)
        with pytest.raises(SliceReadError, match=name):
            StreamedTiles([*tiles, bad], window_bytes=1 << 20)


def test_a_tile_that_is_not_whole_pages_is_corrupt(tmp_path: Path) -> None:
    """Offsets and sizes come from a manifest and are checked at birth."""
    for offset, byte_count in ((1, PAGE), (-PAGE, PAGE), (0, PAGE - 1), (0, 0), (0, -PAGE)):
        with pytest.raises(SliceCorrupt, match="whole pages"):
            TileRange(path=tmp_path / "x.bin", offset=offset, byte_count=byte_count)


def test_a_window_too_small_opens_nothing(tiles: list[TileRange]) -> None:
    """The error comes before any file is opened or thread started."""
    with pytest.raises(WindowTooSmall, match=f"at least {LEAST_BYTES} bytes"):
        StreamedTiles(tiles, window_bytes=LEAST_BYTES - 1)
    with pytest.raises(InternalError):
        StreamedTiles(tiles, window_bytes=LEAST_BYTES, reader_count=0)


def test_a_rank_without_tiles_needs_nothing() -> None:
    """An empty slice opens, closes and holds no bytes."""
    for source in (StreamedTiles([], window_bytes=0), ResidentTiles([])):
        assert source.stats.peak_held_bytes == 0
        source.close()
