"""What series make of rounds: round trips by node, bytes, who worked longest, who came last.

Covers: moving the series. Does not cover: their names (round_series.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.ranks.round_record import RoundRecord
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.round_table import Rounds


class RoundMetrics:
    """An observer of rounds."""

    def __init__(self, series: RoundSeries, node_names: Sequence[str]) -> None:
        """Args: node_names: by rank."""
        # Looking a label up takes as long as moving the series, and a token takes hundreds of rounds.
        self._round_trips = [series.round_trip_seconds.of(name) for name in node_names]
        self._sent_bytes = [series.sent_bytes.of(name) for name in node_names]
        self._received_bytes = [series.received_bytes.of(name) for name in node_names]
        self._slowest = [series.slowest_rounds.of(name) for name in node_names]
        self._last = [series.last_rounds.of(name) for name in node_names]

    def observe(self, rounds: Rounds) -> None:
        """Count some rounds."""
        for record in rounds.single():
            self._count(record)
        for sums in rounds.sums():
            for place, rank in enumerate(sums.ranks):
                self._round_trips[rank].add(sums.trip_counts[place], sums.trip_seconds[place])
                self._sent_bytes[rank].value += sums.sent_bytes[place]
                self._received_bytes[rank].value += sums.received_bytes[place]
                self._slowest[rank].value += sums.slowest_counts[place]
                self._last[rank].value += sums.last_counts[place]

    def _count(self, record: RoundRecord) -> None:
        started = record.started
        for part in record.parts:
            rank = part.rank
            self._round_trips[rank].observe(part.arrived - started)
            self._sent_bytes[rank].value += part.sent_bytes
            self._received_bytes[rank].value += part.received_bytes
        self._slowest[record.slowest.rank].value += 1
        self._last[record.last.rank].value += 1
