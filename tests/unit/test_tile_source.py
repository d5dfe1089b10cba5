"""Do tiles come from real files whole, at stable addresses, within the promised memory and time?

Covers: common/weights/tile_source.py over real reader threads: sweeps, seeks, waiting, closing, counting.
Does not cover: faults of disk and files (test_reader.py), random orders of events (tests/property/test_window.py).
"""

from __future__ import annotations

import gc
import mmap
import random
import threading

import pytest

from common.errors import InternalError, SliceReadError, WindowTooSmall
from common.weights.reader import ReadSettings, TileRange
from common.weights.tile_source import ResidentTiles, StreamedTiles
from tests.support.tiles_on_disk import (
    LEAST_BYTES,
    PAGE,
    SIZES,
    HangingDisk,
    content,
    end_readers,
    sweep,
)

pytestmark = pytest.mark.usefixtures("reads_leave_nothing")


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
    end_readers()
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


def test_a_disk_that_hangs_is_an_error_in_time_and_recovers(tiles: list[TileRange]) -> None:
    """Each acquire ends with an error after the limit; when the disk answers again, tiles come right."""
    disk = HangingDisk()
    with StreamedTiles(
        tiles, window_bytes=LEAST_BYTES, settings=ReadSettings(timeout_seconds=0.01), read_into=disk.read
    ) as source:
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


def test_a_window_too_small_opens_nothing(tiles: list[TileRange]) -> None:
    """The error comes before any file is opened or thread started."""
    with pytest.raises(WindowTooSmall, match=f"at least {LEAST_BYTES} bytes"):
        StreamedTiles(tiles, window_bytes=LEAST_BYTES - 1)
    with pytest.raises(InternalError):
        StreamedTiles(tiles, window_bytes=LEAST_BYTES, settings=ReadSettings(reads_in_flight=0))


def test_a_rank_without_tiles_needs_nothing() -> None:
    """An empty slice opens, closes and holds no bytes."""
    for source in (StreamedTiles([], window_bytes=0), ResidentTiles([])):
        assert source.stats.peak_held_bytes == 0
        source.close()
