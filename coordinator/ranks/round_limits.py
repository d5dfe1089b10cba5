"""How long may a round take before its node counts as stuck? From how long rounds of its kind took so far. Pure.

Covers: a limit for each kind of block and number of rows. Does not cover: ending a round (the clients), a node that is
gone, which is found much sooner (heartbeats, signs of life).
"""

from __future__ import annotations

from coordinator.ranks.round_table import Rounds
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS

MEASURED_FROM = 16
"""Rounds of a kind before their times count: the first ones read cold disks and verify every byte."""
TIMES, LEAST_SECONDS = 50, 20.0
"""So many times the longest, but never less than what a card or a disk may stall without being broken."""
FORGET = 0.999
"""Of the longest, what is left of it a round later."""


def kind_of_round(kind: str, row_count: int) -> tuple[str, int]:
    """Return what rounds that take about as long have in common."""
    return kind, row_count.bit_length()


class RoundLimits:
    """Limits of one mesh."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._longest: dict[tuple[str, int], float] = {}

    def seconds(self, kind: str, row_count: int) -> float:
        """Return how long a round may take."""
        key = kind_of_round(kind, row_count)
        if self._counts.get(key, 0) < MEASURED_FROM:
            return ROUND_LIMIT_SECONDS
        return min(ROUND_LIMIT_SECONDS, max(LEAST_SECONDS, TIMES * self._longest[key]))

    def took(self, kind: str, row_count: int, *seconds: float) -> None:
        """Note how long a round has taken, or each of several, the oldest first."""
        key = kind_of_round(kind, row_count)
        self._counts[key] = self._counts.get(key, 0) + len(seconds)
        longest = self._longest.get(key, 0.0)
        for one in seconds:
            longest = max(one, FORGET * longest)
        self._longest[key] = longest

    def observe(self, rounds: Rounds) -> None:
        """Note some rounds, but for the addition at their ends."""
        for record in rounds.single():  # as the first ones of a sweep are
            self.took(record.kind, record.row_count, record.last.arrived - record.started)
        for sums in rounds.sums():
            self.took(sums.kind, sums.row_count, *sums.waited_seconds)
