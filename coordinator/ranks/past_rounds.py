"""Rounds that are over wait here until there is time for those who look at them.

    past = PastRounds(observers)
    past.note(PastRound(...))   # ranks.py, in the middle of a round
    past.pass_on()              # at the end of a sweep, or while nodes compute: each observer gets all of them at once

Covers: when observers are called; RoundTimes, which benchmarks read. Does not cover: what they are given
(round_table.py), the others: metrics (round_metrics.py), limits (round_limits.py), slow nodes (slow_nodes.py), paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordinator.ranks.round_record import PastRound, PastStretch
from coordinator.ranks.round_table import Rounds

PASS_ON_SECONDS = 0.1
"""The most that a round may come late."""

Observe = Callable[[Rounds], None]


class PastRounds:
    """Rounds that nobody has looked at yet.

    Looking takes several observers' code and tables through the processor's caches: the rounds of a sweep together cost
    a small part of what they cost one by one between others. So short rounds wait for the end of their sweep,
    PASS_ON_SECONDS at most; who watches for slow nodes looks once a second.
    """

    def __init__(self, observers: Sequence[Observe]) -> None:
        """Args: observers: called with all rounds since the last time, in the thread that passes on; may grow."""
        self._observers = observers
        self._rounds: list[PastRound | PastStretch] = []

    def note(self, past: PastRound | PastStretch) -> None:
        """Keep a round, or several."""
        self._rounds.append(past)

    def pass_on_late(self, now: float) -> None:
        """Have everybody look, if the oldest round has waited for PASS_ON_SECONDS."""
        if self._rounds and now - self._rounds[0].started >= PASS_ON_SECONDS:
            self.pass_on()

    def pass_on(self) -> None:
        """Have everybody look at all rounds so far."""
        if not self._rounds:
            return
        rounds, self._rounds = Rounds(self._rounds), []
        for observe in self._observers:
            observe(rounds)


@dataclass(kw_only=True)
class RoundTimes:
    """Where the time of rounds has gone so far, seconds; a bench reads the differences."""

    round_count: int = 0
    total: float = 0.0
    """From the first byte sent to the sum."""
    tile_wait: float = 0.0
    """Of the slowest rank in each round: waiting for weights."""
    kernel: float = 0.0
    """Of the slowest rank in each round: computing."""
    reduction: float = 0.0
    """From the last answer to the sum: taking, decoding and adding the parts."""

    def observe(self, rounds: Rounds) -> None:
        """Count some rounds."""
        for sums in rounds.sums():
            self.round_count += len(sums.waited_seconds)
            self.total += sums.seconds
            self.tile_wait += sums.tile_wait_nanoseconds / 1e9
            self.kernel += sums.compute_nanoseconds / 1e9
            self.reduction += sums.seconds - sum(sums.waited_seconds)
        for record in rounds.single():
            slowest = record.slowest
            self.round_count += 1
            self.total += record.finished - record.started
            self.tile_wait += slowest.tile_wait_nanoseconds / 1e9
            self.kernel += slowest.compute_nanoseconds / 1e9
            self.reduction += record.finished - record.last.arrived

    @property
    def wire(self) -> float:
        """What is left: encoding, sending, waiting for messages, being scheduled."""
        return max(0.0, self.total - self.tile_wait - self.kernel - self.reduction)
