"""Where did the seconds of a round, and of a sweep, go: to which node, and there to what? Pure.

    path = SweepPath(rank_count=4)
    path.add(record, link_seconds)                       # each round of a sweep
    path.finish(seconds, starved, own_starved)           # {(rank, cause): seconds}, which add up to `seconds`

Covers: durations only, each by one clock: what the last node tells of its answer, the coordinator's own, and what lies
between. Does not cover: measuring a link (link_watch.py), who keeps the sums (path_watch.py).

What lies between is the link's only as far as an echo of as many bytes says: messages wait for a processor too, on both
sides. What is left beyond that falls to the sides in proportion to how long their threads had no core at that time, and
to the coordinator where neither lacked one. A node of an earlier build tells too little: then nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.ranks.round_record import RoundRecord

DISK, PROCESSOR, CORE_WAIT, QUEUE, LINK = "disk", "processor", "core_wait", "queue", "link"
COORDINATOR, UNKNOWN = "coordinator", "unknown"
CAUSES = (DISK, PROCESSOR, CORE_WAIT, QUEUE, LINK, COORDINATOR, UNKNOWN)
"""All that there are. UNKNOWN is what nodes that do not tell leave open."""
OWN = -1
"""Stands for the coordinator where a rank is expected."""
LEAST_STARVED = 0.01
"""Of the time: less is what threads wait anyway when others wake."""

Parts = dict[tuple[int, str], float]
"""Seconds by rank (OWN: the coordinator) and cause; none is 0."""


class RoundSplit(NamedTuple):
    """Seconds of one round, which add up to it; none is negative."""

    disk: float
    """Of the last node: weights were waited for."""
    processor: float
    """Its kernels, and all else that it did for its answer."""
    core_wait: float
    queue: float
    link: float
    beyond: float
    """After the messages were sent and outside of the node and the link."""
    coordinator: float


def split_round(record: RoundRecord, link_seconds: float) -> RoundSplit:
    """Return where a round's time went.

    Args: link_seconds: what an echo of as many bytes as the last node's takes.
    """
    last = record.parts[-1]
    whole = record.finished - record.started
    waited = min(max(0.0, last.arrived - record.sent), max(0.0, whole))
    kernels = last.compute_nanoseconds + last.tile_wait_nanoseconds
    handling = max(last.handling_nanoseconds, kernels, 0) / 1e9
    # A node begins while messages to others are still sent: what does not fit the wait was none.
    share = 1e-9 if handling <= waited else 1e-9 * waited / handling
    left = handling = min(handling, waited)
    disk = min(max(0.0, share * last.tile_wait_nanoseconds), left)
    left -= disk
    queue = min(max(0.0, share * last.queue_nanoseconds), left)
    left -= queue
    core_wait = min(max(0.0, share * last.core_wait_nanoseconds), left)
    beyond = waited - handling
    link = min(beyond, link_seconds)
    return RoundSplit(disk, left - core_wait, core_wait, queue, link, beyond - link, max(0.0, whole) - waited)


class SweepPath:
    """The rounds of one sweep, added up."""

    def __init__(self, rank_count: int) -> None:
        self._sums = [[0.0] * 6 for _ in range(rank_count)]
        self._own = self._rounds = 0.0
        self._is_told = [True] * rank_count

    def add(self, record: RoundRecord, link_seconds: float) -> None:
        """Count a round. Args: as split_round."""
        last = record.parts[-1]
        disk, processor, core_wait, queue, link, beyond, own = split_round(record, link_seconds)
        sums = self._sums[last.rank]
        sums[0] += disk
        sums[1] += processor
        sums[2] += core_wait
        sums[3] += queue
        sums[4] += link
        sums[5] += beyond
        self._own += own
        self._rounds += disk + processor + core_wait + queue + link + beyond + own
        if not last.handling_nanoseconds:
            self._is_told[last.rank] = False

    def finish(self, seconds: float, starved: Sequence[float], own_starved: float) -> Parts:
        """Return the whole sweep; what was not in a round (embedding, norms, head, sampler) is the coordinator's.

        Args: seconds: of the sweep; starved: by rank, the share of that time for which threads had no core;
        own_starved: the coordinator's.
        """
        own = self._own + max(0.0, seconds - self._rounds)
        parts: Parts = {}
        for rank, (disk, processor, core_wait, queue, link, beyond) in enumerate(self._sums):
            unknown = 0.0
            # Who reads weights needs a core too: while threads lack one, a wait for weights is a wait for that.
            not_read = disk * _other_share(starved[rank], core_wait, seconds)
            disk, core_wait = disk - not_read, core_wait + not_read
            if not self._is_told[rank]:
                unknown = beyond
            else:
                to_node = beyond * _node_share(starved[rank], own_starved)
                core_wait += to_node
                own += beyond - to_node
            for cause, value in zip(CAUSES, (disk, processor, core_wait, queue, link, 0.0, unknown), strict=True):
                if value > 0:
                    parts[rank, cause] = value
        if own > 0:
            parts[OWN, COORDINATOR] = own
        return parts


def _other_share(starved: float, core_wait: float, seconds: float) -> float:
    """Return for which share of the time outside of kernels that waited for a core a node's threads had none."""
    others = seconds - core_wait
    if starved < LEAST_STARVED or others <= 0:
        return 0.0
    return min(1.0, max(0.0, starved * seconds - core_wait) / others)


def _node_share(starved: float, own_starved: float) -> float:
    """Return which part of what nobody explains is the node's."""
    together = starved + own_starved
    return starved / together if together >= LEAST_STARVED else 0.0


class StarvedShare:
    """For which share of the last moments did the threads of one process lack a core? From a count that only grows."""

    MEASURED_SECONDS = 1.0

    def __init__(self) -> None:
        self._from: tuple[float, int] | None = None
        self.share = 0.0
        """From 0 to 1."""

    def heard(self, nanoseconds: int, now: float) -> None:
        """Take the count, as told at an instant."""
        if self._from is None or nanoseconds < self._from[1]:  # another process
            self._from = (now, nanoseconds)
            return
        since, before = self._from
        if now - since >= self.MEASURED_SECONDS:
            self.share = min(1.0, (nanoseconds - before) / 1e9 / (now - since))
            self._from = (now, nanoseconds)
