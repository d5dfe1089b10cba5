"""What metrics make of round records: round trips by rank, who worked longest, who came last.

Covers: moving the series. Does not cover: their names (coordinator/metrics.py).
"""

from __future__ import annotations

from coordinator.metrics import CoordinatorMetrics
from coordinator.ranks.round_record import RoundRecord


class RoundMetrics:
    """An observer of rounds."""

    def __init__(self, metrics: CoordinatorMetrics, rank_count: int) -> None:
        # Looking a label up takes as long as moving the series, and a token takes hundreds of rounds.
        ranks = [str(rank) for rank in range(rank_count)]
        self._round_trips = [metrics.round_trip_seconds.labels(rank=rank) for rank in ranks]
        self._slowest = [metrics.slowest_rounds.labels(rank=rank) for rank in ranks]
        self._last = [metrics.last_rounds.labels(rank=rank) for rank in ranks]

    def observe(self, record: RoundRecord) -> None:
        """Count one round."""
        for part in record.parts:
            self._round_trips[part.rank].observe(part.arrived - record.started)
        self._slowest[record.slowest.rank].inc()
        self._last[record.last.rank].inc()
