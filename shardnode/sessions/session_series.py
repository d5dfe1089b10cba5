"""The series of sessions: sweeps, rounds, the bytes of both ways, what sessions end in.

Covers: their names; sessions have threads of their own, so they add under a lock, once a sweep. Does not cover: who
moves them (session.py, listeners/).
"""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Counter

from common.program.tallies import CounterTallies

PREFIX = "shardmesh_node"


class SessionSeries:
    """Series of all sessions of one node."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks."""
        r = registry or CollectorRegistry()
        self._adding = threading.Lock()
        self._sweeps = CounterTallies(f"{PREFIX}_sweeps", "Sweeps begun.", registry=r).of()
        self._rounds = CounterTallies(
            f"{PREFIX}_rounds", "Rounds answered: blocks, or layers at once.", registry=r
        ).of()
        self._received = CounterTallies(
            f"{PREFIX}_round_received_bytes", "Bytes of sessions' messages; not of tensors in memory that both see.",
            registry=r,
        ).of()  # fmt: skip
        self._sent = CounterTallies(
            f"{PREFIX}_round_sent_bytes", "Bytes of the answers to them, likewise.", registry=r
        ).of()
        self.failures = Counter(
            f"{PREFIX}_failures", "Sessions that ended in an error, by reason.", ["reason"], registry=r
        )


class SessionCounts:
    """What one session has moved; its thread adds, and passes it on now and then."""

    def __init__(self, series: SessionSeries) -> None:
        self._series = series
        self.sweeps = self.rounds = self.received_bytes = self.sent_bytes = 0

    def pass_on(self) -> None:
        """Have the page show it: at the beginning of a sweep, and at the session's end."""
        series = self._series
        with series._adding:
            series._sweeps.value += self.sweeps
            series._rounds.value += self.rounds
            series._received.value += self.received_bytes
            series._sent.value += self.sent_bytes
        self.sweeps = self.rounds = self.received_bytes = self.sent_bytes = 0
