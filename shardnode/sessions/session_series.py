"""The series of sessions: sweeps, rounds, the bytes of both ways, what sessions end in.

Covers: their names; each session counts for itself, without a lock, in Python or in C, and the page adds up. Does not
cover: who counts (session.py, listeners/, common/native/serving.c).
"""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Counter

from common.native.served import SessionCounts
from common.program.scraped_series import ScrapedCounter

PREFIX = "shardmesh_node"


class SessionSeries:
    """Series of all sessions of one node."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks."""
        r = registry or CollectorRegistry()
        self._lock = threading.Lock()
        self._open: dict[int, SessionCounts] = {}  # by identity: such memory has no hash
        self._ended = SessionCounts()
        sweeps = ScrapedCounter(f"{PREFIX}_sweeps", "Sweeps begun.", registry=r)
        sweeps.set_function(lambda: self._now().sweeps)
        rounds = ScrapedCounter(f"{PREFIX}_rounds", "Rounds begun: blocks, or layers at once.", registry=r)
        rounds.set_function(lambda: self._now().rounds)
        received = ScrapedCounter(
            f"{PREFIX}_round_received_bytes", "Bytes of sessions' messages; not of tensors in memory that both see.",
            registry=r,
        )  # fmt: skip
        received.set_function(lambda: self._now().received_bytes)
        sent = ScrapedCounter(f"{PREFIX}_round_sent_bytes", "Bytes of the answers to them, likewise.", registry=r)
        sent.set_function(lambda: self._now().sent_bytes)
        self.failures = Counter(
            f"{PREFIX}_failures", "Sessions that ended in an error, by reason.", ["reason"], registry=r
        )

    def begin(self) -> SessionCounts:
        """Return what a new session counts in; `end` must follow."""
        counts = SessionCounts()
        with self._lock:
            self._open[id(counts)] = counts
        return counts

    def end(self, counts: SessionCounts) -> None:
        """Keep what a session has counted. May be called twice."""
        with self._lock:
            if self._open.pop(id(counts), None) is not None:
                _add(self._ended, counts)

    def _now(self) -> SessionCounts:
        """Return what all sessions have counted so far."""
        now = SessionCounts()
        with self._lock:
            for counts in (self._ended, *self._open.values()):
                _add(now, counts)
        return now


def _add(total: SessionCounts, counts: SessionCounts) -> None:
    """Take a session's counts into others."""
    for name, _ in SessionCounts._fields_:
        setattr(total, name, getattr(total, name) + getattr(counts, name))
