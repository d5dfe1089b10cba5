"""Keeps what sweeps were spent on: counters for a scrape, sums of a run, and some sweeps of the last minute for advice.

    watch.begin(row_count=1)                             # before a sweep
    watch.observe(rounds)                                # at the end of it
    watch.swept(seconds, row_count=1, token_count=1)     # once its tokens are there
    watch.facts()                                        # from any thread

Covers: who has how much of it. Does not cover: the arithmetic (critical_path.py, path_facts.py), links (link_watch.py).
Threads: the engine's moves everything; ways are replaced whole by the thread that measures them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.machine.core_wait import StarvedTime
from common.program.tallies import Tally
from coordinator.ranks.critical_path import CAUSES, COORDINATOR, OWN, UNKNOWN, Parts, StarvedShare, SweepPath
from coordinator.ranks.path_facts import SweepFacts, byte_count, facts_of
from coordinator.ranks.path_series import PathSeries
from coordinator.ranks.round_record import RoundRecord
from coordinator.ranks.transports.carriers import Carrier
from coordinator.ranks.transports.echo import Way

LOOK_SECONDS = 2.0
"""From one sweep that is looked at to the next: those between are taken to be like it. What nodes measure for it, and
what is made of it, takes some hundredths of a quick token."""
KEPT = 60
"""Sweeps: two minutes of them."""
ROUNDS_THAT_TELL = 2
"""The first of a sweep for each rank: one without heads takes part in the second."""
FEW_ROWS, MOST_SIZES, MEAN_OF = 8, 256, 20
NEAR = Way(points=((0.0, 0.0),))
"""What a way counts for that nobody has measured: nothing, so that nothing is blamed on it."""


@dataclass(slots=True)
class _Sum:
    """What sweeps have spent on one cause."""

    tally: Tally
    """Of all models that were open."""
    seconds: float = 0.0
    """Of this one."""


class PathWatch:
    """The critical path of one open model."""

    def __init__(self, labels: Sequence[str], series: PathSeries, carriers: Sequence[Carrier] = ()) -> None:
        """Args: labels: what series and reports call the nodes, by rank; carriers: of their rounds; (): not told."""
        self.labels, self.carriers = list(labels), tuple(carriers)
        self.is_open = True
        """Whether there are sessions still; ranks that are closed say so."""
        self.ways: tuple[Way, ...] = (NEAR,) * len(labels)
        self.message_bytes = 0
        """Of the last message to the last node of a round of few rows: what echoes are to be like."""
        self.is_looking = False
        """Whether rounds of the sweep under way are looked at, and nodes asked for what they waited."""
        self.swept_at = float("-inf")
        """When the last one ended (time.perf_counter)."""
        self.token_seconds = 0.0
        """What sweeps of few rows take: a running mean, since one alone may have met anything."""
        self._series = series
        self._sums: dict[tuple[int, str], _Sum] = {}  # to look a label up costs as much as to count
        for rank in range(len(labels)):
            for cause in CAUSES:
                if cause not in (COORDINATOR, UNKNOWN):
                    self._sum(rank, cause)
        self._sum(OWN, COORDINATOR)
        self._starved = [StarvedShare() for _ in labels]
        self._own_starved, self._own_time = StarvedShare(), StarvedTime()
        self._records: list[RoundRecord] = []
        self._link_seconds: dict[tuple[int, int], float] = {}
        self._shares: list[tuple[_Sum, float]] = []
        """Of a second of the last sweep that was looked at: whose it was."""
        self._looked_at = float("-inf")
        self._lock = threading.Lock()
        self._facts: deque[SweepFacts] = deque(maxlen=KEPT)

    def close(self) -> None:
        """Say that sessions have ended, and let go of what counted waits. What is known stays."""
        self.is_open = False
        self._own_time.close()

    def _sum(self, rank: int, cause: str) -> _Sum:
        """Return what is counted of a cause, which is on the page from now on."""
        found = self._sums.get((rank, cause))
        if found is None:
            label = "" if rank == OWN else self.labels[rank]
            found = self._sums[rank, cause] = _Sum(self._series.critical_path_seconds.of(label, cause))
        return found

    def begin(self, row_count: int) -> None:
        """Say that a sweep begins: whether its rounds are looked at."""
        self._records = []
        self.is_looking = row_count > FEW_ROWS or time.perf_counter() - self._looked_at >= LOOK_SECONDS

    def observe(self, rounds: Iterable[RoundRecord]) -> None:
        """Take some rounds."""
        if self.is_looking:
            self._records.extend(rounds)

    def swept(self, seconds: float, *, row_count: int, token_count: int) -> None:
        """Take a sweep that is over, with all its rounds."""
        now = self.swept_at = time.perf_counter()
        if row_count <= FEW_ROWS:
            self.token_seconds += (seconds - self.token_seconds) / (MEAN_OF if self.token_seconds else 1)
        if self.is_looking and self._records:
            parts = self._parts(seconds, now)
            self._looked_at = now
            self._shares = [(self._sum(*key), value / max(seconds, 1e-9)) for key, value in parts.items()]
            self._keep(parts, now, seconds, row_count, token_count)
        for total, share in self._shares:  # of this one, or of one so short ago that it stands for this one too
            amount = share * seconds
            total.tally.value += amount
            total.seconds += amount

    def _parts(self, seconds: float, now: float) -> Parts:
        """Return where a sweep's time went that is over now."""
        path = SweepPath(len(self.labels))
        for record in self._records:
            last = record.parts[-1]
            path.add(record, self._link(last.rank, byte_count(last)))
        for record in self._records[:ROUNDS_THAT_TELL]:
            for part in record.parts:
                if part.starved_nanoseconds:
                    self._starved[part.rank].heard(part.starved_nanoseconds, now)
        self._own_starved.heard(self._own_time.nanoseconds(), now)
        return path.finish(seconds, [one.share for one in self._starved], self._own_starved.share)

    def _link(self, rank: int, byte_total: int) -> float:
        """Return what an echo of so many bytes takes; looked up, since rounds are alike."""
        found = self._link_seconds.get((rank, byte_total))
        if found is None:
            if len(self._link_seconds) >= MOST_SIZES:
                self._link_seconds = {}
            found = self._link_seconds[rank, byte_total] = self.ways[rank].seconds(byte_total)
        return found

    def _keep(self, parts: Parts, now: float, seconds: float, row_count: int, token_count: int) -> None:
        """Keep a sweep for advice."""
        last = self._records[-1]
        if last.row_count <= FEW_ROWS:
            self.message_bytes = byte_count(last.parts[-1]) // 2
        found = facts_of(
            self._records, self.ways, parts, at=now, seconds=seconds, row_count=row_count, token_count=token_count
        )
        with self._lock:
            self._facts.append(found)

    def facts(self) -> list[SweepFacts]:
        """Return the sweeps that were looked at closely, the oldest first. From any thread."""
        with self._lock:
            return list(self._facts)

    def seconds_by_node(self) -> dict[str, dict[str, float]]:
        """Return where all sweeps so far went, by node (coordinator: its own) and cause."""
        found: dict[str, dict[str, float]] = {}
        for (rank, cause), total in sorted(self._sums.items()):
            if total.seconds:
                found.setdefault(COORDINATOR if rank == OWN else self.labels[rank], {})[cause] = total.seconds
        return found

    def starved_share(self, rank: int) -> float:
        """Return for which share of the last seconds a node's threads had no core. From any thread."""
        return self._starved[rank].share

    @property
    def own_starved_share(self) -> float:
        """For which share of the last second threads of this process had no core."""
        return self._own_starved.share

    def set_ways(self, ways: Sequence[Way]) -> None:
        """Take what was measured, by rank. From any thread."""
        self.ways = tuple(ways)
        self._link_seconds = {}
        for label, way in zip(self.labels, ways, strict=True):
            self._series.link_echo_seconds.of(label).value = way.round_trip_seconds
