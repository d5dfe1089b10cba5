"""Does the memory window keep its promises under every order of events?

Covers: common/weights/window.py, on the real placement, against a simulated memory that knows, page by
page, what was read where.
Does not cover: single cases (tests/unit/test_window_examples.py), where tiles lie (test_placement.py),
threads and files (tests/unit/test_tile_source.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.errors import SliceReadError
from common.weights.placement import ALIGNMENT_BYTES, least_window_bytes
from common.weights.window import MemoryWindow, StartRead
from tests.support.thorough import examples

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
TestWindowMachine.settings = settings(max_examples=examples(200), stateful_step_count=60, deadline=None)


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
