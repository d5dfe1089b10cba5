"""Does the memory window do the right thing in single cases that have a name?

Covers: common/weights/window.py, event by event.
Does not cover: random orders of events (tests/property/test_window.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from common.errors import InternalError, SliceReadError
from common.weights.placement import ALIGNMENT_BYTES
from common.weights.window import MemoryWindow, StartRead

PAGE = ALIGNMENT_BYTES
DISK_ERROR = SliceReadError("the disk failed")


def finish_all(window: MemoryWindow, reads: Sequence[StartRead]) -> list[StartRead]:
    """End these reads and all they lead to; return every read in the order it began."""
    done: list[StartRead] = []
    pending = list(reads)
    while pending:
        done.append(pending.pop(0))
        pending += window.read_done(done[-1].ticket)
    return done


def test_a_seek_ahead_keeps_what_is_already_read() -> None:
    """Skipping tiles drops those before the target and reads on behind the last one in the window."""
    window = MemoryWindow(tile_bytes=[PAGE] * 20, window_bytes=6 * PAGE)
    assert [read.tile_index for read in finish_all(window, window.start())] == [0, 1, 2, 3, 4, 5]
    reads = finish_all(window, window.seek(4))
    assert [read.tile_index for read in reads] == [6, 7, 8, 9]
    assert window.acquire(4) is not None


def test_a_seek_back_drops_everything_read() -> None:
    """A new sweep from the first tile starts with the first tile."""
    window = MemoryWindow(tile_bytes=[PAGE] * 20, window_bytes=4 * PAGE)
    finish_all(window, window.start())
    assert window.acquire(0) is not None
    finish_all(window, window.release(0))
    reads = window.seek(0)
    assert [read.tile_index for read in reads] == [0, 1]
    assert window.acquire(0) is None


@pytest.mark.parametrize("reads", [1, 2])
def test_a_seek_to_the_tile_that_is_next_while_reads_run_goes_on_reading(reads: int) -> None:
    """A seek that changes nothing, with every read slot taken, does not make the window forget where to read on."""
    window = MemoryWindow(tile_bytes=[PAGE] * 9, window_bytes=(reads + 1) * PAGE, reads_in_flight=reads)
    running = window.start()
    running += window.read_done(running.pop(0).ticket)
    assert len(running) == reads
    assert window.seek(0) == []
    for tile_index in range(9):
        while window.acquire(tile_index) is None:
            assert running, "nobody reads what is waited for"
            running += window.read_done(running.pop(0).ticket)
        running += window.release(tile_index)


def test_a_seek_in_a_window_that_holds_the_cycle_reads_nothing_twice() -> None:
    """What is kept is kept, in whichever order it is used."""
    window = MemoryWindow(tile_bytes=[PAGE] * 5, window_bytes=5 * PAGE)
    assert len(finish_all(window, window.start())) == 5
    for tile_index in (3, 1, 4, 0):
        assert window.seek(tile_index) == []
        assert window.acquire(tile_index) is not None
        assert window.release(tile_index) == []
    assert window.needs_no_more_reads


def test_bytes_under_an_abandoned_read_are_given_out_only_when_it_has_ended() -> None:
    """The disk may still write there: the new read waits for the old one, whose tile nobody gets."""
    window = MemoryWindow(tile_bytes=[PAGE] * 9, window_bytes=2 * PAGE, reads_in_flight=2)
    first, second = window.start()
    assert window.seek(4) == []
    assert window.held_bytes == 2 * PAGE
    (third,) = window.read_done(first.ticket)
    assert (third.tile_index, third.region_offset) == (4, first.region_offset)
    assert window.acquire(4) is None
    (fourth,) = window.read_failed(second.ticket, DISK_ERROR)
    assert fourth.tile_index == 5
    assert window.read_done(third.ticket) == []
    assert window.acquire(4) is not None


def test_a_failure_waits_for_its_tile_and_is_told_once() -> None:
    """Tiles before the failed one are still handed out; after the retry the failed one is too."""
    window = MemoryWindow(tile_bytes=[PAGE] * 9, window_bytes=3 * PAGE)
    first, second = window.start()
    (third,) = window.read_failed(second.ticket, DISK_ERROR)
    window.read_done(first.ticket)
    window.read_done(third.ticket)
    assert window.acquire(0) is not None
    assert window.failure is None
    window.release(0)
    assert window.acquire(1) is None
    assert window.failure is DISK_ERROR
    again = window.retry()
    assert again[0].tile_index == 1
    assert window.failure is None
    window.read_done(again[0].ticket)
    assert window.acquire(1) is not None


def test_a_tile_is_released_as_soon_as_it_has_been_used() -> None:
    """Its bytes go to the next read at once, not one tile later."""
    window = MemoryWindow(tile_bytes=[PAGE] * 9, window_bytes=2 * PAGE)
    finish_all(window, window.start())
    place_index = window.acquire(0)
    assert place_index is not None
    (read,) = window.release(0)
    assert (read.tile_index, read.region_offset) == (2, window.placement.places[place_index].region_offset)


def test_events_in_a_wrong_order_are_refused() -> None:
    """A caller's bug is an error that says what was going on, and changes nothing."""
    window = MemoryWindow(tile_bytes=[PAGE] * 3, window_bytes=2 * PAGE)
    reads = window.start()
    finish_all(window, reads)
    wrong = [
        lambda: window.acquire(1),
        lambda: window.release(0),
        lambda: window.retry(),
        lambda: window.seek(3),
        lambda: window.seek(-1),
        lambda: window.read_done(reads[0].ticket),
    ]
    for event in wrong:
        with pytest.raises(InternalError):
            event()
    assert window.acquire(0) is not None
    for event in (lambda: window.acquire(0), lambda: window.release(1), lambda: window.seek(1)):
        with pytest.raises(InternalError):
            event()
    window.check_invariants()
    with pytest.raises(InternalError, match="multiples of 4096"):
        MemoryWindow(tile_bytes=[PAGE + 1], window_bytes=9 * PAGE)
    with pytest.raises(InternalError, match="at least 1"):
        MemoryWindow(tile_bytes=[PAGE], window_bytes=9 * PAGE, reads_in_flight=0)


def test_a_rank_without_tiles_has_a_window_of_nothing() -> None:
    """A slice may be empty; there is nothing to read, and nothing to acquire."""
    window = MemoryWindow(tile_bytes=[], window_bytes=0)
    assert window.start() == []
    assert window.needs_no_more_reads
    window.check_invariants()
    with pytest.raises(InternalError):
        window.acquire(0)
