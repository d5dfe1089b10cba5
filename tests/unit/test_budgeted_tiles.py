"""Do tiles that stay and tiles that pass come as one cycle, each read as often as it must be?"""

from __future__ import annotations

import pytest

from common.errors import SliceReadError, WindowTooSmall
from common.weights.budgeted_tiles import BudgetedTiles
from common.weights.reader import ReadSettings, TileRange
from tests.support.tiles_on_disk import LEAST_BYTES, PAGE, SIZES, FaultyDisk, content, sweep

RESIDENT = frozenset({1, 4, 6})
RESIDENT_BYTES = sum(SIZES[index] for index in RESIDENT) * PAGE
WINDOW_BYTES = 8 * PAGE
"""The least for the tiles that pass: 5 and 3 pages are neighbours now."""


pytestmark = pytest.mark.usefixtures("reads_leave_nothing")


@pytest.mark.parametrize("bypass", [False, True])
def test_every_sweep_gives_the_right_bytes(tiles: list[TileRange], bypass: bool) -> None:
    """In order and out of it; resident tiles are read once, and memory is what was allowed."""
    settings = ReadSettings(bypass_page_cache=bypass, read_bytes=2 * PAGE)
    source = BudgetedTiles(tiles, resident=RESIDENT, window_bytes=WINDOW_BYTES, settings=settings)
    for _ in range(5):
        sweep(source, tiles)
    for index in (3, 1, 0, 6, 6, 2):  # abandoned sweeps
        assert bytes(source.acquire(index)) == content(tiles[index])
        source.release(index)
    stats = source.stats
    assert stats.resident_bytes == RESIDENT_BYTES
    assert stats.window_bytes <= WINDOW_BYTES
    assert stats.peak_held_bytes <= RESIDENT_BYTES + WINDOW_BYTES
    assert source._resident.stats.reads_total == len(RESIDENT)
    assert stats.bytes_read_total > 4 * (sum(SIZES) * PAGE - RESIDENT_BYTES)
    source.close()


def test_a_failing_disk_is_told_for_either_kind(tiles: list[TileRange]) -> None:
    """A resident tile and a streamed one: an error that names the file, then the tile."""
    for index in (1, 2):
        disk = FaultyDisk(tiles[index].offset, failure_count=1)
        source = BudgetedTiles(tiles[:4], resident=frozenset({1}), window_bytes=LEAST_BYTES, read_into=disk.read)
        sweep(source, tiles[:1])
        if index == 2:
            source.acquire(1)
            source.release(1)
        with pytest.raises(SliceReadError, match=r"first\.bin.*EIO"):
            source.acquire(index)
        assert bytes(source.acquire(index)) == content(tiles[index])
        source.release(index)
        source.close()


def test_a_window_too_small_leaves_nothing_open(tiles: list[TileRange]) -> None:
    """The tiles that stay are let go again."""
    with pytest.raises(WindowTooSmall):
        BudgetedTiles(tiles, resident=RESIDENT, window_bytes=PAGE)
