"""Which tiles may kernels take from the page cache themselves, and what happens when the cache lets one go?

Covers: CachedReads behind StreamedTiles.
Does not cover: products (tests/property/test_cached_products.py), nodes (tests/contract/test_cached_rounds.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from common.compute.matmul import kernels
from common.native.library import Outcome
from common.weights.checksums import XXH3, Checksum, xxh3_of
from common.weights.reader import ReadSettings, TileRange, read_into
from common.weights.tile_source import ResidentTiles, StreamedTiles, TileSource
from tests.support.tiles_on_disk import LEAST_BYTES, content, end_readers, sweep

pytestmark = [
    pytest.mark.usefixtures("reads_leave_nothing"),
    pytest.mark.skipif(kernels.functions is None, reason="there are no kernels to take anything"),
    pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot read only what is cached"),
]


def with_checksums(tiles: list[TileRange]) -> list[TileRange]:
    """Return the tiles with the checksums that a manifest would give them."""
    return [replace(tile, checksum=Checksum(kind=XXH3, value=xxh3_of(content(tile)))) for tile in tiles]


@pytest.fixture
def source(tiles: list[TileRange]) -> Iterator[StreamedTiles]:
    """Return tiles behind the least window, none of them read yet."""
    with StreamedTiles(with_checksums(tiles), window_bytes=LEAST_BYTES) as made:
        yield made


def take(source: TileSource, tile_index: int, outcome: Outcome = Outcome.DONE) -> bool:
    """Tell whether a tile may be taken, and pretend that taking it had this outcome."""
    cached = source.begin_cached(tile_index)
    if cached is None:
        return False
    source.end_cached(tile_index, outcome, int(outcome is Outcome.DONE))
    return True


def test_a_tile_is_taken_only_after_it_was_read_and_verified(source: StreamedTiles, tiles: list[TileRange]) -> None:
    """Then from where it lies in its file."""
    assert not take(source, len(tiles) - 1)
    sweep(source, tiles)
    cached = source.begin_cached(5)
    assert cached is not None
    assert os.pread(cached.fd, 100, cached.offset) == tiles[5].path.read_bytes()[tiles[5].offset :][:100]
    source.end_cached(5, Outcome.DONE, 1)


def test_what_was_taken_counts_apart_from_what_the_disk_gave(tiles: list[TileRange]) -> None:
    """In bytes of its own: a rate of the disk would else be that of memory. In reads, beside the window's."""
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES) as source:
        sweep(source, tiles)
        taken = [index for index in range(3) if take(source, index)]
    end_readers()
    through_window = source._bytes_read_total, source._reads_total
    assert source.stats.bytes_read_total == through_window[0]
    assert source.stats.cached_bytes_total == sum(tiles[index].byte_count for index in taken) > 0
    assert source.stats.reads_total == through_window[1] + 3


def test_after_a_tile_that_was_not_there_the_window_takes_over_until_the_next_cycle(
    source: StreamedTiles, tiles: list[TileRange]
) -> None:
    """It reads ahead, which single tries do not."""
    sweep(source, tiles)
    assert take(source, 0)
    assert take(source, 1, Outcome.NOT_CACHED)
    assert not take(source, 2)
    source.acquire(1)
    source.release(1)
    assert take(source, 0)
    assert take(source, 2)


def test_a_file_system_that_cannot_tell_is_asked_once(source: StreamedTiles, tiles: list[TileRange]) -> None:
    """Everything goes through the window from then on."""
    sweep(source, tiles)
    assert take(source, 0, Outcome.NEVER_CACHED)
    assert not take(source, 0)
    sweep(source, tiles)


@pytest.mark.parametrize("way", ["past the cache", "all in memory", "an injected reader"])
def test_nothing_is_taken_where_the_cache_has_no_part(tiles: list[TileRange], way: str) -> None:
    """Where reads leave nothing in the cache, where nothing is read again, where a test says how to read."""
    if way == "past the cache":
        made: StreamedTiles = StreamedTiles(
            tiles, window_bytes=LEAST_BYTES, settings=ReadSettings(bypass_page_cache=True)
        )
    elif way == "all in memory":
        made = ResidentTiles(tiles)
    else:
        made = StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=lambda *call: read_into(*call))
    with made:
        sweep(made, tiles)
        assert not take(made, 0)


def test_closing_waits_for_a_tile_that_is_used(tiles: list[TileRange]) -> None:
    """Its file must not be closed, and its number given to another, under a kernel."""
    source = StreamedTiles(tiles, window_bytes=LEAST_BYTES)
    sweep(source, tiles)
    cached = source.begin_cached(3)
    assert cached is not None
    closing = threading.Thread(target=source.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    os.fstat(cached.fd)
    source.end_cached(3, Outcome.DONE, 1)
    closing.join(10)
    assert not closing.is_alive()
    assert not take(source, 3)
