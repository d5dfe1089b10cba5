"""Keeps what sweeps were spent on: counters for a scrape, sums of a run, and some sweeps of the last minute for advice.

    watch.observe(record)                                # of rounds, at the end of a sweep
    watch.swept(seconds, row_count=1, token_count=1)     # once its tokens are there
    watch.facts()                                        # from any thread

Covers: who has how much of it. Does not cover: the arithmetic (critical_path.py, path_facts.py), links (link_watch.py).
Threads: the engine's moves everything; `ways` is replaced whole by the thread that measures them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from common.machine.core_wait import StarvedTime
from common.program.tallies import Tally
from coordinator.ranks.critical_path import CAUSES, COORDINATOR, OWN, UNKNOWN, Parts, StarvedShare, SweepPath
from coordinator.ranks.path_facts import SweepFacts, byte_count, facts_of
from coordinator.ranks.path_series import PathSeries
from coordinator.ranks.round_record import RoundRecord
from coordinator.ranks.transports.echo import Way

KEPT = 60
"""Sweeps; KEPT_SECONDS apart at least, which is a minute of them, since looking closely costs as much as ten rounds."""
KEPT_SECONDS = 1.0
FEW_ROWS = 8
NEAR = Way(points=((0.0, 0.0),))
"""What a way counts for that nobody has measured: nothing, so that nothing is blamed on it."""


class PathWatch:
    """The critical path of one open model."""

    def __init__(self, labels: Sequence[str], series: PathSeries) -> None:
        """Args: labels: what series and reports call the nodes, by rank."""
        self.labels = list(labels)
        self.ways: tuple[Way, ...] = (NEAR,) * len(labels)
        self.totals: Parts = {}
        """Of all sweeps so far."""
        self.message_bytes = 0
        """Of the last message to the last node of a round of few rows: what echoes are to be like."""
        self.swept_at = float("-inf")
        """When the last one ended (time.perf_counter)."""
        self._series = series
        self._tallies: dict[tuple[int, str], Tally] = {}  # to look a label up costs as much as to count
        for rank in range(len(labels)):
            for cause in CAUSES:
                if cause not in (COORDINATOR, UNKNOWN):
                    self._tally(rank, cause)
        self._tally(OWN, COORDINATOR)
        self._path = SweepPath(len(labels))
        self._starved = [StarvedShare() for _ in labels]
        self._own_starved, self._own_time = StarvedShare(), StarvedTime()
        self._records: list[RoundRecord] = []
        self._heard: dict[int, int] = {}
        self._is_close = True  # whether the sweep under way is looked at closely
        self._looked_at = float("-inf")
        self._lock = threading.Lock()
        self._facts: deque[SweepFacts] = deque(maxlen=KEPT)

    def _tally(self, rank: int, cause: str) -> Tally:
        """Return a counter, which is on the page from now on."""
        label = "" if rank == OWN else self.labels[rank]
        return self._tallies.setdefault((rank, cause), self._series.critical_path_seconds.of(label, cause))

    def observe(self, record: RoundRecord) -> None:
        """Take a round."""
        last = record.parts[-1]
        self._path.add(record, self.ways[last.rank].seconds(byte_count(last)))
        if self._is_close:
            self._records.append(record)
            if record.row_count <= FEW_ROWS:
                self.message_bytes = byte_count(last) // 2
        self._heard[last.rank] = last.starved_nanoseconds

    def swept(self, seconds: float, *, row_count: int, token_count: int) -> None:
        """Take a sweep that is over, with all its rounds."""
        now = self.swept_at = time.perf_counter()
        for rank, nanoseconds in self._heard.items():
            self._starved[rank].heard(nanoseconds, now)
        self._own_starved.heard(self._own_time.nanoseconds(), now)
        parts = self._path.finish(seconds, [one.share for one in self._starved], self._own_starved.share)
        for key, value in parts.items():
            tally = self._tallies.get(key)
            if tally is None:
                tally = self._tally(*key)
            tally.value += value
            self.totals[key] = self.totals.get(key, 0.0) + value
        if self._is_close:
            self._looked_at = now
            found = facts_of(
                self._records, self.ways, parts, at=now, seconds=seconds, row_count=row_count, token_count=token_count
            )
            with self._lock:
                self._facts.append(found)
        self._path = SweepPath(len(self.labels))
        self._records = []
        self._is_close = now - self._looked_at >= KEPT_SECONDS

    def facts(self) -> list[SweepFacts]:
        """Return the sweeps that were looked at closely, the oldest first. From any thread."""
        with self._lock:
            return list(self._facts)

    def seconds_by_node(self) -> dict[str, dict[str, float]]:
        """Return where all sweeps so far went, by node (coordinator: its own) and cause."""
        found: dict[str, dict[str, float]] = {}
        for (rank, cause), seconds in sorted(self.totals.items()):
            found.setdefault(COORDINATOR if rank == OWN else self.labels[rank], {})[cause] = seconds
        return found

    @property
    def own_starved_share(self) -> float:
        """For which share of the last second threads of this process had no core."""
        return self._own_starved.share

    def set_ways(self, ways: Sequence[Way]) -> None:
        """Take what was measured, by rank. From any thread."""
        self.ways = tuple(ways)
        for label, way in zip(self.labels, ways, strict=True):
            self._series.link_echo_seconds.of(label).value = way.round_trip_seconds
