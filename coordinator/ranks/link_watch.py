"""How long is the way to each node now, while rounds go over it? A few echoes every few seconds, by the side.

    watch = LinkWatch(names, channels, path)             # a thread; nothing is sent while no sweep goes on
    watch.close()

Covers: the link alone: of a handful of echoes, one right after the other, the quickest counts, which has met neither a
busy processor nor a round's bytes; of some handfuls the one in the middle, so that a link that has become slow is seen
with the third. And the ways within one host, which do not change. Does not cover: what it means (critical_path.py),
measuring for a plan (planning/links.py).
Threads: one; it waits for nodes, the engine never waits for it.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import grpc

from common.errors import ShardmeshError
from coordinator.ranks.path_watch import NEAR, PathWatch
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.transports.echo import EchoStream, Link

LOOK_SECONDS = 3.0
MEASURED = 5
"""Looks that count: what has changed is seen with the third, nine seconds later."""
BUSY_SECONDS = 2 * LOOK_SECONDS
"""After the last sweep: then nobody is asking, and nothing is sent."""
SMALL_BYTES, SMALL_ECHOES, LARGE_ECHOES = 64, 4, 2
LEAST_BYTES, FIRST_BYTES, MOST_BYTES = 1 << 10, 4 << 10, 64 << 10
"""Of the larger echoes: so many that they take some milliseconds, and no round waits behind them for long."""
SHORT_SECONDS, LONG_SECONDS = 0.004, 0.02
NOISE_SECONDS = 0.0003
"""Less cannot be told apart; a rate is at least what follows from it."""
ECHO_SECONDS = 10.0

SESSION_ECHOES = 3

log = logging.getLogger(__name__)


class MeasuredLink:
    """One way, as the last looks have found it."""

    def __init__(self, first: Link) -> None:
        """Args: first: what it counts for until it was looked at."""
        self.link = first
        self.byte_count = FIRST_BYTES
        """Of the next larger echo."""
        self._looks: deque[tuple[float, float]] = deque(maxlen=MEASURED)

    def looked(self, small_seconds: float, large_seconds: float) -> bool:
        """Take a look: the quickest small echo, and of byte_count. Tell whether a larger one is worth it."""
        beyond = large_seconds - small_seconds
        self._looks.append((small_seconds, 2 * self.byte_count / max(beyond, NOISE_SECONDS)))
        trips, rates = zip(*self._looks, strict=True)
        self.link = Link(
            round_trip_seconds=statistics.median_low(trips), bytes_per_second=statistics.median_high(rates)
        )
        before = self.byte_count
        if beyond < SHORT_SECONDS:
            self.byte_count = min(MOST_BYTES, 2 * before)
        elif beyond > LONG_SECONDS:
            self.byte_count = max(LEAST_BYTES, before // 2)
        return self.byte_count > before


def measure_sessions(ranks: Ranks) -> None:
    """Ask each node some times for nothing, over its session, and keep how long that takes; while nothing else runs.

    Raises: NodeError: a node is gone.
    """
    links = []
    for rank in range(len(ranks.clients)):
        trips = []
        for _ in range(SESSION_ECHOES):
            started = time.perf_counter()
            ranks.settle(rank)
            trips.append(time.perf_counter() - started)
        links.append(replace(NEAR, round_trip_seconds=min(trips)))
    ranks.path.set_links(links)


class LinkWatch:
    """Looks at the ways to the nodes of one open model. Close it."""

    def __init__(self, names: Sequence[str], channels: Sequence[grpc.Channel], path: PathWatch) -> None:
        """Args: names, channels: of the nodes, by rank; path: is told what is found, and tells of sweeps."""
        self._ways = list(zip(names, channels, strict=True))
        self._path = path
        self._links = [MeasuredLink(link) for link in path.links]
        self._is_over = threading.Event()
        self._stream: EchoStream | None = None
        self._thread = threading.Thread(target=self._watch, name="link-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the looking. May be called twice."""
        self._is_over.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()
        self._thread.join()

    def _watch(self) -> None:
        is_first = True
        while not self._is_over.wait(LOOK_SECONDS if not is_first else 0.2):
            if time.perf_counter() - self._path.swept_at > BUSY_SECONDS:
                continue
            for rank in range(len(self._ways)):
                try:
                    self._look(rank, again=is_first)
                except ShardmeshError as error:  # of an earlier build, or gone: who sends rounds tells
                    log.debug("no echo: %s", error)
            self._path.set_links([one.link for one in self._links])
            is_first = False

    def _look(self, rank: int, *, again: bool) -> None:
        """Measure one way. Args: again: at once with more bytes, as long as they take no time. Raises: NodeError."""
        name, channel = self._ways[rank]
        measured = self._links[rank]
        if self._is_over.is_set():
            return
        with EchoStream(channel, name, ECHO_SECONDS) as stream:
            self._stream = stream
            stream.round(SMALL_BYTES)  # the stream opens
            more = True
            while more and not self._is_over.is_set():
                small = min(stream.round(SMALL_BYTES) for _ in range(SMALL_ECHOES))
                large = min(stream.round(measured.byte_count) for _ in range(LARGE_ECHOES))
                more = measured.looked(small, large) and again
            self._stream = None
