"""How long is the way to each node now, while rounds go over it? A few echoes every few seconds, by the side.

    watch = LinkWatch(names, channels, path)             # a thread; nothing is sent while no sweep goes on
    watch.close()

Covers: the way alone: of echoes of the same size, one right after the other, the quicker one counts, which has met
neither a busy processor nor a round's bytes; of three looks the one in the middle, so that a link that has become slow
is seen with the second, which comes sooner after one that differs. Few bytes wait behind a round's on a way that is
full, so of twenty looks the quickest counts.
And the ways within one host, which do not change. Does not cover: what it means (critical_path.py), measuring for a
plan (planning/links.py).
Threads: one; it waits for nodes, the engine never waits for it.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from common.errors import ShardmeshError
from coordinator.ranks.path_watch import PathWatch
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.transports.echo import Echoes, Way
from coordinator.ranks.transports.echo_lane import EchoLane

FIRST_SECONDS, LOOK_SECONDS, LOOKS, TRIPS = 0.2, 3.0, 3, 20
STEADY_LOOK_SECONDS = 60.0
"""From one look to the next while all ways, and the time of tokens, are as they were: a look takes some milliseconds of
both processors."""
STEADY_SHARE, STEADY_SECONDS = 0.5, 0.005
"""An echo may take so much more or less than the way says, or so long, and it is still as it was."""
LOOK_SHARE = 0.05
"""Of the time: where a look takes long, because the link is slow, looks come as much less often."""
BUSY_SECONDS = 6.0
"""After the last sweep: then nobody is asking, and nothing is sent."""
SMALL_BYTES, SMALL_ECHOES, ECHOES = 64, 2, 2
MORE_BYTES, MORE_SECONDS, MORE_LOOKS = 64 << 10, 0.002, 10
"""Of an echo that tells what many rows would take: with every so manyth look, and where those like a round of one row
are no slower than this."""
SESSION_ECHOES = 3
STARVED_SHARE = 0.2
LIMIT_SECONDS = 30.0
"""Of a look at one node."""
CLOSE_SECONDS = 0.5
"""Who ends the looking waits no longer for a look that is just being connected: that ends by itself, unseen."""

log = logging.getLogger(__name__)


def measure_sessions(ranks: Ranks) -> None:
    """Ask each node some times for nothing, over its session, and keep how long that takes; while nothing else runs.

    Raises: NodeError: a node is gone.
    """
    ways = []
    for rank in range(len(ranks.clients)):
        trips = []
        for _ in range(SESSION_ECHOES):
            started = time.perf_counter()
            ranks.settle(rank)
            trips.append(time.perf_counter() - started)
        ways.append(Way(points=((0.0, min(trips)),)))
    ranks.path.set_ways(ways)


def is_alike(seconds: float, before: float) -> bool:
    """Tell whether tokens take about as long as before, so that no way has become much slower or quicker."""
    return before <= seconds * (1 + STEADY_SHARE) and seconds <= before * (1 + STEADY_SHARE)


class MeasuredWay:
    """One way, as the last looks have found it."""

    def __init__(self, round_trip_seconds: float = 0.0) -> None:
        """Args: round_trip_seconds: as it was before rounds filled the way; 0: not known."""
        self._trips = deque([round_trip_seconds] if round_trip_seconds else [], maxlen=TRIPS)
        self._looks: deque[Mapping[int, float]] = deque(maxlen=LOOKS)
        self.is_steady = False
        """Whether the last look found what those before it had found."""

    def looked(self, quickest: Mapping[int, float], *, is_starved: bool = False) -> Way:
        """Take a look, and return the way.

        Args: quickest: seconds by the bytes that went there, and as many back; is_starved: whether threads at the other
            end lack a core: then the quickest of three looks counts, the others have waited for that.
        """
        middle = min if is_starved else statistics.median_low
        self._looks.append(quickest)
        fewest, *others = sorted(quickest)
        self._trips.append(quickest[fewest])
        points = [(2.0 * fewest, min(self._trips))]
        for byte_count in others:
            took = [look[byte_count] for look in self._looks if byte_count in look]
            # More bytes are not quicker, whatever noise says.
            points.append((2.0 * byte_count, max(points[-1][1], middle(took))))
        # Echoes that waited for a core tell nothing of the link, however often they are sent.
        self.is_steady = is_starved or (
            len(self._looks) == LOOKS
            and all(
                abs(quickest[byte_count] - seconds) <= max(STEADY_SECONDS, STEADY_SHARE * seconds)
                for byte_count, (_, seconds) in zip(others, points[1:], strict=True)
            )
        )
        return Way(points=tuple(points))


class LinkWatch:
    """Looks at the ways to the nodes of one open model. Close it."""

    def __init__(self, lanes: Sequence[EchoLane], path: PathWatch) -> None:
        """Args: lanes: to the nodes, by rank; path: is told what is found, and tells of sweeps."""
        self._lanes, self._path = lanes, path
        self._measured = [MeasuredWay(way.round_trip_seconds) for way in path.ways]
        self._more: dict[int, dict[int, float]] = {}
        self._look_count = 0
        self._is_over = threading.Event()
        self._stream: Echoes | None = None
        self._thread = threading.Thread(target=self._watch, name="link-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the looking. May be called twice."""
        self._is_over.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()
        self._thread.join(CLOSE_SECONDS)

    def _watch(self) -> None:
        pause, looked_at, usual, left = FIRST_SECONDS, float("-inf"), 0.0, LOOKS
        while not self._is_over.wait(pause):
            started, tokens_take = time.perf_counter(), self._path.token_seconds
            if started - self._path.swept_at > BUSY_SECONDS:
                continue
            if not is_alike(tokens_take, usual):  # all that a way is made of is to be new
                usual, left = tokens_take, LOOKS
            is_steady = left <= 0 and all(one.is_steady for one in self._measured)
            if is_steady and started - looked_at < STEADY_LOOK_SECONDS:
                continue
            left -= 1
            ways = list(self._path.ways)
            for rank, lane in enumerate(self._lanes):
                try:
                    quickest = dict(self._look(rank))
                    if quickest:
                        quickest.update(self._more.get(rank, {}))
                        is_starved = self._path.starved_share(rank) >= STARVED_SHARE
                        ways[rank] = self._measured[rank].looked(quickest, is_starved=is_starved)
                except ShardmeshError as error:  # of an earlier build, or gone: who sends rounds tells
                    log.debug("no echo: %s", error)
                    lane.failed(error)
                if self._is_over.is_set():
                    return
            self._look_count += 1
            self._path.set_ways(ways)
            pause = max(LOOK_SECONDS, (time.perf_counter() - started) / LOOK_SHARE)
            looked_at = started

    def _look(self, rank: int) -> Iterator[tuple[int, float]]:
        """Yield bytes and the quickest echo of as many: few, a round's. Raises: NodeError."""
        own = self._path.message_bytes
        with self._lanes[rank].stream(LIMIT_SECONDS) as stream:
            self._stream = stream
            if self._is_over.is_set():  # `close` may have found the one before
                return
            stream.round(SMALL_BYTES)  # the stream opens
            yield SMALL_BYTES, min(stream.round(SMALL_BYTES) for _ in range(SMALL_ECHOES))
            took = 0.0
            if own > SMALL_BYTES:
                took = min(stream.round(own) for _ in range(ECHOES))
                yield own, took
            if took > MORE_SECONDS or own >= MORE_BYTES:
                self._more.pop(rank, None)
            elif self._look_count % MORE_LOOKS == 0 or rank not in self._more:
                self._more[rank] = {MORE_BYTES: min(stream.round(MORE_BYTES) for _ in range(ECHOES))}
            self._stream = None
