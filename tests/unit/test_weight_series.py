"""Do series of weights follow true tiles, and stay counted when these are gone?

Covers: common/program/weight_series.py over tiles on disk. Does not cover: the tiles (test_tile_source.py).
"""

from __future__ import annotations

import threading
from pathlib import Path
from unittest import mock

from prometheus_client import CollectorRegistry

from common.program.weight_series import PAGE_SECONDS, WeightSeries
from common.weights.reader import ReadSettings, read_into
from common.weights.tile_source import StreamedTiles
from tests.support.series_totals import total_of
from tests.support.tiles_on_disk import LEAST_BYTES, write_tiles
from tests.support.waiting import wait_until

PREFIX = "x"


def test_reads_under_way_and_what_they_took_are_shown(tmp_path: Path) -> None:
    """A disk that does not answer has reads in flight; when it does, their bytes and seconds are counted."""
    may_read, registry = threading.Event(), CollectorRegistry()

    def slow_read(descriptor: int, buffer: memoryview, offset: int) -> int:
        assert may_read.wait(30)
        return read_into(descriptor, buffer, offset)

    series = WeightSeries(PREFIX, registry)
    tiles = write_tiles(tmp_path)
    settings = ReadSettings(reads_in_flight=2)
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES, settings=settings, read_into=slow_read) as source:
        series.follow(lambda: source.stats)
        assert total_of(registry, "x_reads_in_flight") == 2
        assert total_of(registry, "x_window_bytes") == LEAST_BYTES
        assert total_of(registry, "x_read_seconds_total") == 0
        may_read.set()
        source.acquire(0)
        source.release(0)
        read = tiles[0].byte_count
        wait_until(lambda: total_of(registry, "x_read_bytes_total") >= read, limit_seconds=10, what="a tile is counted")
        assert total_of(registry, "x_read_seconds_total") > 0
    series.let_go()


def test_a_page_asks_once_for_all_numbers_and_the_next_one_again(tmp_path: Path) -> None:
    """They are of one moment, and each asking takes the lock that readers wait for."""
    registry, asked = CollectorRegistry(), []
    series = WeightSeries(PREFIX, registry)
    with StreamedTiles(write_tiles(tmp_path), window_bytes=LEAST_BYTES) as source:
        series.follow(lambda: asked.append(1) or source.stats)  # type: ignore[func-returns-value] # it counts
        clock = mock.Mock(return_value=100.0)
        with mock.patch("common.program.weight_series.time.monotonic", clock):
            list(registry.collect())
            list(registry.collect())
            assert len(asked) == 1
            clock.return_value += 1.5 * PAGE_SECONDS
            list(registry.collect())
            assert len(asked) == 2
        series.let_go()
        assert len(asked) > 2, "to the last byte"


def test_what_was_read_stays_counted_over_the_lives_of_several_slices(tmp_path: Path) -> None:
    """A counter that fell back with every model that is opened would count nothing; sizes are those of now."""
    registry = CollectorRegistry()
    series = WeightSeries(PREFIX, registry)
    tiles = write_tiles(tmp_path)
    counted = 0.0
    for _ in range(2):
        with StreamedTiles(tiles, window_bytes=LEAST_BYTES) as source:
            series.follow(lambda source=source: source.stats)  # type: ignore[misc] # it has a default
            source.acquire(0)
            source.release(0)
            series.let_go()
            assert total_of(registry, "x_window_bytes") == total_of(registry, "x_reads_in_flight") == 0
        after = total_of(registry, "x_read_bytes_total")
        assert after >= counted + tiles[0].byte_count
        counted = after
    assert total_of(registry, "x_read_bytes_total") == counted
