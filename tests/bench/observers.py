"""What does it cost to look at a round once it is over? `python -m tests.bench.observers`.

Prints microseconds a record of four ranks, of each observer that every run has, and beside them what the metrics alone
took with prometheus_client's own counters, which take a lock each: what they were until they became tallies.
Covers: observers of round records (coordinator/ranks/round_record.py). Does not cover: tokens (beside.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from coordinator.ranks.round_limits import RoundLimits
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import RankRound, RoundRecord, RoundTimes
from coordinator.ranks.round_series import ROUND_SECONDS, RoundSeries
from coordinator.ranks.slow_nodes import SlowNodeWatch

NAMES = ("node0", "node1", "node2", "node3")
ROUNDS, TRIES = 20_000, 5


def record_of(world_size: int = len(NAMES)) -> RoundRecord:
    """Return the record of one round of a short sweep."""
    parts = tuple(RankRound(rank, 10.001 + rank / 1e4, 200_000, 0, 2400, 2400) for rank in range(world_size))
    return RoundRecord(7, (1,), "ffn", 3, 1, 1, 10.0, 10.0002, 10.002, parts, parts[0])


class LibrarysOwn:
    """What counted rounds before, with as many series as there were."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        trips = Histogram("trips", "Trips.", ["rank"], buckets=ROUND_SECONDS, registry=registry)
        slowest = Counter("slowest", "Slowest.", ["rank"], registry=registry)
        last = Counter("last", "Last.", ["rank"], registry=registry)
        ranks = [str(rank) for rank in range(len(NAMES))]
        self._trips = [trips.labels(rank=rank) for rank in ranks]
        self._slowest = [slowest.labels(rank=rank) for rank in ranks]
        self._last = [last.labels(rank=rank) for rank in ranks]

    def observe(self, record: RoundRecord) -> None:
        """Count one round."""
        for part in record.parts:
            self._trips[part.rank].observe(part.arrived - record.started)
        self._slowest[record.slowest.rank].inc()
        self._last[record.last.rank].inc()


def microseconds(observe: Callable[[RoundRecord], None]) -> float:
    """Return what one record takes, the best of some tries."""
    record, best = record_of(), float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        for _ in range(ROUNDS):
            observe(record)
        best = min(best, time.perf_counter() - started)
    return best / ROUNDS * 1e6


def main() -> None:
    """Measure and print."""
    observers: dict[str, Callable[[RoundRecord], None]] = {
        "metrics": RoundMetrics(RoundSeries(), NAMES).observe,
        "metrics, by the library's own series": LibrarysOwn().observe,
        "watch for slow nodes": SlowNodeWatch(NAMES, lambda text: None).observe,
        "limits": RoundLimits().observe,
        "times": RoundTimes().observe,
    }
    for name, observe in observers.items():
        print(f"{microseconds(observe):6.2f} us  {name}")


if __name__ == "__main__":
    main()
