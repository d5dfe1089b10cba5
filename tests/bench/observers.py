"""What does it cost to look at a round once it is over? `python -m tests.bench.observers`.

Prints microseconds a round of four ranks, one of a sweep of sixty: of each observer that every run has, of making what
they look at, and beside them what the metrics alone took with prometheus_client's own counters, which take a lock each:
what they were until they became tallies.
Covers: observers of rounds (coordinator/ranks/past_rounds.py). Does not cover: tokens (beside.py).
"""

from __future__ import annotations

import time

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from common.weights.slice_format import BLOCK_KINDS
from coordinator.ranks.past_rounds import Observe, RoundTimes
from coordinator.ranks.round_limits import RoundLimits
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import PastStretch
from coordinator.ranks.round_series import ROUND_SECONDS, RoundSeries
from coordinator.ranks.round_table import Rounds
from coordinator.ranks.slow_nodes import SlowNodeWatch
from coordinator.ranks.sweep import Sweep

NAMES = ("node0", "node1", "node2", "node3")
ROUNDS, SWEEPS, TRIES = 60, 300, 5


def past_rounds(world_size: int = len(NAMES)) -> list[PastStretch]:
    """Return the rounds of one short sweep."""
    ranks = tuple(range(world_size))
    times = np.tile(np.array([10_000_000_000, 10_000_200_000, 10_002_000_000]), (ROUNDS, 1))
    answers = np.array([(10_001_000_000 + rank * 100_000, 200_000, 0, 0, 0, 0, 0) for rank in ranks])
    taking_part, answered = dict.fromkeys(BLOCK_KINDS, ranks), np.tile(answers, (ROUNDS, 1, 1))
    return [PastStretch(Sweep(sweep_id=7, segments=()), 0, 1, taking_part, times, answered, 2400, 2400)]


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

    def observe(self, rounds: Rounds) -> None:
        """Count some rounds."""
        for record in rounds:
            for part in record.parts:
                self._trips[part.rank].observe(part.arrived - record.started)
            self._slowest[record.slowest.rank].inc()
            self._last[record.last.rank].inc()


def microseconds(observe: Observe, *, is_made: bool = True) -> float:
    """Return what one round takes, the best of some tries. Args: is_made: what is looked at has been made."""
    past, best = past_rounds(), float("inf")
    rounds = Rounds(past)
    observe(rounds)
    for _ in range(TRIES):
        started = time.perf_counter()
        for _ in range(SWEEPS):
            observe(rounds if is_made else Rounds(past))
        best = min(best, time.perf_counter() - started)
    return best / SWEEPS / ROUNDS * 1e6


def _add_up(rounds: Rounds) -> None:
    rounds.sums()


def _make_records(rounds: Rounds) -> None:
    list(rounds)


def main() -> None:
    """Measure and print."""
    observers: dict[str, Observe] = {
        "metrics": RoundMetrics(RoundSeries(), NAMES).observe,
        "metrics, by the library's own series": LibrarysOwn().observe,
        "watch for slow nodes": SlowNodeWatch(NAMES, lambda text: None).observe,
        "limits": RoundLimits().observe,
        "times": RoundTimes().observe,
    }
    for name, observe in observers.items():
        print(f"{microseconds(observe):6.2f} us  {name}")
    print(f"{microseconds(_add_up, is_made=False):6.2f} us  adding them up")
    print(f"{microseconds(_make_records, is_made=False):6.2f} us  making records")


if __name__ == "__main__":
    main()
