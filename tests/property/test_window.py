"""Does the memory window keep its promises under every order of events?

Covers: placement.py and window.py against a simulated memory that knows, page by page, what was read where.
Does not cover: threads and files (tests/unit/test_reader.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.errors import InternalError, SliceReadError, WindowTooSmall
from common.weights.placement import ALIGNMENT_BYTES, least_window_bytes, plan_placement
from common.weights.window import MemoryWindow, StartRead

PAGE = ALIGNMENT_BYTES
DISK_ERROR = SliceReadError("the disk failed")


def page_lists(max_count: int = 9) -> st.SearchStrategy[list[int]]:
    """Tile sizes in pages."""
    return st.lists(st.integers(min_value=1, max_value=7), min_size=1, max_size=max_count)


class SimulatedMemory:
    """Window memory that holds tile numbers instead of weights, and objects to what a real one would suffer from."""

    def __init__(self, window_bytes: int, reads_in_flight: int) -> None:
        self.pages: list[int | None] = [None] * (window_bytes // PAGE)
        self.running: dict[int, StartRead] = {}
        self.pages_in_use: set[int] = set()
        self.reads_in_flight = reads_in_flight
        self.order: list[int] = []

    def begin(self, reads: Sequence[StartRead]) -> None:
        for read in reads:
            pages = self.pages_of(read)
            assert pages[-1] < len(self.pages), "a read goes beyond the window"
            assert not self.pages_in_use & set(pages), "a read goes into the tile in use"
            for other in self.running.values():
                assert not set(self.pages_of(other)) & set(pages), "two reads go into the same bytes"
            assert read.ticket not in self.running
            self.running[read.ticket] = read
            self.order.append(read.tile_index)
            for page in pages:
                self.pages[page] = None
        assert len(self.running) <= self.reads_in_flight

    def end(self, ticket: int, succeeded: bool = True) -> None:
        read = self.running.pop(ticket)
        for page in self.pages_of(read):
            self.pages[page] = read.tile_index if succeeded else None

    @staticmethod
    def pages_of(read: StartRead) -> range:
        assert read.region_offset % PAGE == read.byte_count % PAGE == 0
        return range(read.region_offset // PAGE, (read.region_offset + read.byte_count) // PAGE)


class WindowMachine(RuleBasedStateMachine):
    """Random events against a window; the simulated memory and the window's own invariants watch each one."""

    @initialize(sizes=page_lists(), spare_pages=st.integers(min_value=0, max_value=20), reads=st.integers(1, 3))
    def build(self, sizes: list[int], spare_pages: int, reads: int) -> None:
        self.sizes = [size * PAGE for size in sizes]
        window_bytes = least_window_bytes(self.sizes) + spare_pages * PAGE
        self.window = MemoryWindow(tile_bytes=self.sizes, window_bytes=window_bytes, reads_in_flight=reads)
        self.memory = SimulatedMemory(window_bytes, reads)
        self.next_tile = 0
        self.in_use = False
        self.memory.begin(self.window.start())

    @invariant()
    def invariants_hold(self) -> None:
        if hasattr(self, "window"):
            self.window.check_invariants()

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: self.memory.running)
    def a_read_ends(self, which: int) -> None:
        ticket = sorted(self.memory.running)[which % len(self.memory.running)]
        self.memory.end(ticket)
        self.memory.begin(self.window.read_done(ticket))

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: self.memory.running)
    def a_read_fails(self, which: int) -> None:
        ticket = sorted(self.memory.running)[which % len(self.memory.running)]
        self.memory.end(ticket, succeeded=False)
        self.memory.begin(self.window.read_failed(ticket, DISK_ERROR))

    @rule()
    @precondition(lambda self: not self.in_use)
    def the_next_tile_is_awaited_and_acquired(self) -> None:
        """Whatever happened before: finitely many ends of reads later the tile is there, and it is that tile."""
        place_index = self.await_next()
        place = self.window.placement.places[place_index]
        pages = range(place.region_offset // PAGE, place.region_end // PAGE)
        assert len(pages) * PAGE == self.sizes[self.next_tile]
        assert {self.memory.pages[page] for page in pages} == {self.next_tile}, "stale or half-read bytes"
        self.memory.pages_in_use = set(pages)
        self.in_use = True

    def await_next(self) -> int:
        failures_left = len(self.sizes)
        while (place_index := self.window.acquire(self.next_tile)) is None:
            if self.window.failure is not None:
                assert failures_left, "a failure comes back without a new read"
                failures_left -= 1
                self.memory.begin(self.window.retry())
                continue
            assert self.memory.running, "nobody reads what is waited for"
            self.a_given_read_ends(min(self.memory.running))
        return place_index

    def a_given_read_ends(self, ticket: int) -> None:
        self.memory.end(ticket)
        self.memory.begin(self.window.read_done(ticket))
        self.window.check_invariants()

    @rule()
    @precondition(lambda self: self.in_use)
    def the_tile_is_released(self) -> None:
        self.memory.pages_in_use = set()
        self.in_use = False
        self.memory.begin(self.window.release(self.next_tile))
        self.next_tile = (self.next_tile + 1) % len(self.sizes)

    @rule(tile=st.integers(0, 8))
    @precondition(lambda self: not self.in_use)
    def the_sweep_is_abandoned(self, tile: int) -> None:
        self.next_tile = tile % len(self.sizes)
        self.memory.begin(self.window.seek(self.next_tile))
        assert self.window.failure is None, "an old failure survived the sweep it belonged to"


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def run_in_order(window: MemoryWindow, memory: SimulatedMemory, tile_count: int, sweep_count: int) -> None:
    """Use every tile in order; while one is in use, all running reads end."""
    memory.begin(window.start())
    for tile_index in list(range(tile_count)) * sweep_count:
        for ticket in sorted(memory.running):
            memory.end(ticket)
            memory.begin(window.read_done(ticket))
        assert window.acquire(tile_index) is not None, "the next tile was not read while the one before was in use"
        for ticket in sorted(memory.running):
            memory.end(ticket)
            memory.begin(window.read_done(ticket))
        memory.begin(window.release(tile_index))
        window.check_invariants()


@given(sizes=page_lists(20), spare_pages=st.integers(0, 60), reads=st.integers(1, 3))
def test_every_legal_window_reads_one_tile_while_another_is_in_use(
    sizes: list[int], spare_pages: int, reads: int
) -> None:
    """While a tile is used the next one can be read whole, over the cycle's end too, from the least window on."""
    tile_bytes = [size * PAGE for size in sizes]
    window_bytes = least_window_bytes(tile_bytes) + spare_pages * PAGE
    window = MemoryWindow(tile_bytes=tile_bytes, window_bytes=window_bytes, reads_in_flight=reads)
    memory = SimulatedMemory(window_bytes, reads)
    run_in_order(window, memory, len(sizes), 4)
    assert window.peak_held_bytes <= window_bytes
    assert memory.order == [index % len(sizes) for index in range(len(memory.order))]
    if sum(tile_bytes) <= window_bytes:
        assert window.needs_no_more_reads
        assert len(memory.order) == len(sizes)
    else:
        assert len(memory.order) > 3 * len(sizes)


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
