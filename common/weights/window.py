"""Decides which tile is read when, and where to; never touches disk, threads or a clock.

Covers: the order of reads and releases within window_bytes, seeks, failed reads.
Does not cover: addresses (placement.py), reading (reader.py), waiting (tile_source.py).
Source: sliding-window memory scheduling, arXiv:2410.00531 section 3; tiles here are released as soon as they are used.

Every event returns the reads to start. A place (see placement.py) is *live* from the start of its read until its
tile is released or dropped. Invariants, restated by `check_invariants`:

- live places lie within the run of the next place to be used, so their bytes are disjoint;
- a place whose read was abandoned by a seek is not live, but its bytes go to nobody before that read has ended;
- the next read is the first place from the next use on that is not live, so reads follow the order of use, and what
  is waited for is either live or the next read: nothing waits for ever;
- at most `reads_in_flight` reads run, abandoned ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from common.errors import InternalError, ShardmeshError
from common.weights.placement import Placement, plan_placement


@dataclass(frozen=True, kw_only=True)
class StartRead:
    """Read tile `tile_index` whole to byte `region_offset` of the window; then report `ticket`."""

    ticket: int
    tile_index: int
    place_index: int
    """Index into `MemoryWindow.placement.places`."""
    region_offset: int
    byte_count: int


class _State(Enum):
    READING = "reading"
    READY = "ready"
    FAILED = "failed"


class MemoryWindow:
    """The window's state machine. At most one tile is acquired at a time; not thread-safe.

    Raises: WindowTooSmall: two neighbouring tiles do not fit.
            InternalError (any event): the caller's order of events is wrong.
    """

    def __init__(self, *, tile_bytes: Sequence[int], window_bytes: int, reads_in_flight: int = 2) -> None:
        if reads_in_flight < 1:
            raise InternalError(f"{reads_in_flight} reads in flight; at least 1 is needed")
        self.placement: Placement = plan_placement(tile_bytes, window_bytes)
        self.held_bytes = 0
        """Bytes of the window that hold a tile or are being read into."""
        self.peak_held_bytes = 0
        self._tile_count = len(tile_bytes)
        self._place_count = len(self.placement.places)
        self._reads_in_flight = reads_in_flight
        self._live: dict[int, _State] = {}  # by place index
        self._errors: dict[int, ShardmeshError] = {}  # of the FAILED places
        self._in_flight: dict[int, int] = {}  # ticket -> place index; abandoned when that place is not live
        self._next_use = 0
        self._next_read = 0
        self._next_ticket = 0
        self._acquired = False  # place _next_use is being used

    # -- events ---------------------------------------------------------------------------------------------------

    def start(self) -> list[StartRead]:
        """Begin with the first tile of the cycle."""
        return self._start_reads()

    def read_done(self, ticket: int) -> list[StartRead]:
        """The read has ended and its tile is whole."""
        place_index = self._end_read(ticket)
        if place_index in self._live:
            self._live[place_index] = _State.READY
        return self._start_reads()

    def read_failed(self, ticket: int, error: ShardmeshError) -> list[StartRead]:
        """The read has ended without its tile; `error` waits for whoever wants that tile."""
        place_index = self._end_read(ticket)
        if place_index in self._live:
            self._live[place_index] = _State.FAILED
            self._errors[place_index] = error
        return self._start_reads()

    def acquire(self, tile_index: int) -> int | None:
        """Return the place of the next tile and keep it until `release`, or None while it is not there.

        After None: `failure` tells whether to wait. Only `seek` makes another tile the next.
        """
        if self._acquired or not self._place_count or tile_index != self._next_use % self._tile_count:
            raise InternalError(f"tile {tile_index} acquired {self._situation()}")
        if self._live.get(self._next_use) is not _State.READY:
            return None
        self._acquired = True
        return self._next_use

    def release(self, tile_index: int) -> list[StartRead]:
        """The acquired tile has been used: its bytes are free at once."""
        if not self._acquired or tile_index != self._next_use % self._tile_count:
            raise InternalError(f"tile {tile_index} released {self._situation()}")
        self._acquired = False
        if not self.placement.keeps_everything:
            self._drop(self._next_use)
        self._next_use = (self._next_use + 1) % self._place_count
        return self._start_reads()

    def seek(self, tile_index: int) -> list[StartRead]:
        """The next tile to be used is `tile_index`: keep what lies ahead of it, drop the rest and old failures."""
        if self._acquired or not 0 <= tile_index < self._tile_count:
            raise InternalError(f"seek to tile {tile_index} {self._situation()}")
        skipped = (tile_index - self._next_use) % self._tile_count
        target = (self._next_use + skipped) % self._place_count
        keeps_ahead = target in self._live
        for place_index, state in list(self._live.items()):
            is_needed = keeps_ahead and (place_index - self._next_use) % self._place_count >= skipped
            if state is _State.FAILED or not (is_needed or self.placement.keeps_everything):
                self._drop(place_index)
        self._next_use = self._next_read = target
        return self._start_reads()

    def retry(self) -> list[StartRead]:
        """The failure of the next tile has been told to someone: forget it and read that tile again."""
        if self._live.get(self._next_use) is not _State.FAILED:
            raise InternalError(f"retry without a failure {self._situation()}")
        self._drop(self._next_use)
        self._next_read = self._next_use
        return self._start_reads()

    # -- questions ------------------------------------------------------------------------------------------------

    @property
    def next_tile_index(self) -> int:
        """The tile that `acquire` or `release` is expected for; -1 when there are no tiles."""
        return self._next_use % self._tile_count if self._tile_count else -1

    @property
    def failure(self) -> ShardmeshError | None:
        """Why the next tile could not be read, or None."""
        return self._errors.get(self._next_use)

    @property
    def needs_no_more_reads(self) -> bool:
        """Every tile is in memory and stays there."""
        return self.placement.keeps_everything and all(
            self._live.get(index) is _State.READY for index in range(self._place_count)
        )

    def check_invariants(self) -> None:
        """Assert what the module docstring promises; for tests, after every event."""
        places, count = self.placement.places, self._place_count
        ahead = {index: (index - self._next_use) % count for index in self._live}
        assert all(distance < self.placement.runs[self._next_use] for distance in ahead.values())
        busy = sorted((places[index] for index in self._busy_places()), key=lambda place: place.region_offset)
        assert all(one.region_end <= other.region_offset for one, other in pairwise(busy))
        assert self.held_bytes == sum(place.byte_count for place in busy)
        assert self.held_bytes <= self.peak_held_bytes <= self.placement.region_bytes
        if len(self._live) < count:
            assert self._next_read not in self._live
            distance_to_read = (self._next_read - self._next_use) % count
            assert all((self._next_use + step) % count in self._live for step in range(distance_to_read))
        assert len(self._in_flight) <= self._reads_in_flight
        reading = {index for index, state in self._live.items() if state is _State.READING}
        assert reading == self._live.keys() & set(self._in_flight.values())
        assert self._errors.keys() == {index for index, state in self._live.items() if state is _State.FAILED}
        assert not self._acquired or self._live[self._next_use] is _State.READY

    # -- inside ---------------------------------------------------------------------------------------------------

    def _start_reads(self) -> list[StartRead]:
        """Start reads in the order of use while the window, and the limit in flight, have room."""
        started: list[StartRead] = []
        while self._find_missing() and len(self._in_flight) < self._reads_in_flight and self._has_room():
            started.append(self._begin_read())
        return started

    def _find_missing(self) -> bool:
        """Move _next_read to the first place that is not live; False when all are.

        After every event, also when nothing can be read: a pointer left behind _next_use would never be reached.
        """
        if len(self._live) == self._place_count:
            return False
        while self._next_read in self._live:
            self._next_read = (self._next_read + 1) % self._place_count
        return True

    def _has_room(self) -> bool:
        """Whether the next read's bytes are free: within the run, and no abandoned read still writes there."""
        distance = (self._next_read - self._next_use) % self._place_count
        if distance >= self.placement.runs[self._next_use]:
            return False
        places = self.placement.places
        return not any(
            index not in self._live and places[index].overlaps(places[self._next_read])
            for index in self._in_flight.values()
        )

    def _begin_read(self) -> StartRead:
        place = self.placement.places[self._next_read]
        read = StartRead(
            ticket=self._next_ticket,
            tile_index=place.tile_index,
            place_index=self._next_read,
            region_offset=place.region_offset,
            byte_count=place.byte_count,
        )
        self._next_ticket += 1
        self._in_flight[read.ticket] = self._next_read
        self._live[self._next_read] = _State.READING
        self.held_bytes += read.byte_count
        self.peak_held_bytes = max(self.peak_held_bytes, self.held_bytes)
        return read

    def _end_read(self, ticket: int) -> int:
        place_index = self._in_flight.pop(ticket, None)
        if place_index is None:
            raise InternalError(f"read {ticket} ended twice or was never started")
        if place_index not in self._live:
            self.held_bytes -= self.placement.places[place_index].byte_count
        return place_index

    def _drop(self, place_index: int) -> None:
        """Make a place not live; the bytes of a running read stay taken until it ends."""
        self._errors.pop(place_index, None)
        if self._live.pop(place_index) is not _State.READING:
            self.held_bytes -= self.placement.places[place_index].byte_count

    def _busy_places(self) -> set[int]:
        return self._live.keys() | set(self._in_flight.values())

    def _situation(self) -> str:
        state = "in use" if self._acquired else "next"
        return f"while tile {self.next_tile_index} of {self._tile_count} is {state}"
