"""Do tiles lie where neighbours never overlap, in the least window and in larger ones?

Covers: common/weights/placement.py. Does not cover: when tiles are read (test_window.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import WindowTooSmall
from common.weights.placement import ALIGNMENT_BYTES, least_window_bytes, plan_placement

PAGE = ALIGNMENT_BYTES


def page_lists(max_count: int = 9) -> st.SearchStrategy[list[int]]:
    """Tile sizes in pages."""
    return st.lists(st.integers(min_value=1, max_value=7), min_size=1, max_size=max_count)


@given(sizes=page_lists(20), spare_pages=st.integers(0, 60), odd_bytes=st.integers(0, PAGE - 1))
def test_neighbouring_places_never_overlap(sizes: list[int], spare_pages: int, odd_bytes: int) -> None:
    """The table is aligned, within the window, repeats the cycle at most twice, and its runs are really disjoint."""
    tile_bytes = [size * PAGE for size in sizes]
    window_bytes = least_window_bytes(tile_bytes) + spare_pages * PAGE + odd_bytes
    placement = plan_placement(tile_bytes, window_bytes)
    places = placement.places
    assert len(places) in (len(sizes), 2 * len(sizes))
    assert [place.tile_index for place in places] == list(range(len(sizes))) * (len(places) // len(sizes))
    assert [place.byte_count for place in places] == tile_bytes * (len(places) // len(sizes))
    assert all(place.region_offset % PAGE == 0 <= place.region_offset for place in places)
    assert max(place.region_end for place in places) == placement.region_bytes <= window_bytes
    for position, run in enumerate(placement.runs):
        assert run >= min(2, len(sizes))
        together = [places[(position + step) % len(places)] for step in range(run)]
        pages = [page for place in together for page in range(place.region_offset, place.region_end, PAGE)]
        assert len(pages) == len(set(pages))


@given(sizes=page_lists(), missing_pages=st.integers(min_value=1, max_value=100))
def test_a_window_too_small_is_refused_with_the_least_that_would_do(sizes: list[int], missing_pages: int) -> None:
    """One page less than two neighbours is an error whose number, when followed, works."""
    tile_bytes = [size * PAGE for size in sizes]
    least_bytes = least_window_bytes(tile_bytes)
    with pytest.raises(WindowTooSmall, match=f"at least {least_bytes} bytes"):
        plan_placement(tile_bytes, max(least_bytes - missing_pages * PAGE, 0))
    plan_placement(tile_bytes, least_bytes)


def test_the_least_window_is_the_largest_two_neighbours() -> None:
    """The last tile and the first are neighbours; one or two tiles are simply kept."""
    assert least_window_bytes([5, 1, 2, 4]) == 9
    assert least_window_bytes([1, 5, 1, 4]) == 6
    assert least_window_bytes([3, 2]) == 5
    assert least_window_bytes([3]) == 3
    assert least_window_bytes([]) == 0


def test_a_ring_is_used_where_more_than_two_tiles_fit() -> None:
    """Small tiles in a large window are read far ahead, not only one by one."""
    placement = plan_placement([PAGE] * 60, 10 * PAGE)
    assert placement.runs == (10,) * 60
    mixed = plan_placement([250 * PAGE, 650 * PAGE] * 30, 2 * 650 * PAGE)
    assert len(mixed.places) == 60, "attention and FFN in a window of two FFN blocks need one address each"
