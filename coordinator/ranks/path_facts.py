"""What did every node do in one sweep, and how much sooner would it have ended without what? For advice. Pure.

Covers: all nodes and not only the last one of each round; what an answer's coming sooner would have been worth, round
by round: no more than until the next to last came. Does not cover: what to advise (answering/advice.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.ranks.critical_path import CORE_WAIT, DISK, LINK, PROCESSOR, QUEUE, Parts, split_round
from coordinator.ranks.round_record import RankRound, RoundRecord
from coordinator.ranks.transports.echo import Way

BEYOND = "beyond"
"""What lies outside of the node and its link: a part of a round, shared out at the end of the sweep."""


class NodeWork(NamedTuple):
    """What one node did in a sweep, whether others waited for it or not."""

    processor: float
    """Seconds, as all of these."""
    core_wait: float
    disk: float
    queue: float
    byte_count: int
    """There and back."""


class SweepFacts(NamedTuple):
    """One sweep."""

    at: float
    """When it ended (time.perf_counter)."""
    seconds: float
    row_count: int
    token_count: int
    """That came of it."""
    parts: Parts
    nodes: tuple[NodeWork, ...]
    """By rank."""
    gains: Parts
    """By rank and cause: seconds that the sweep would have been shorter if there were nothing of it."""
    halved_gain: float
    """If messages had half as many bytes."""


def facts_of(
    records: Sequence[RoundRecord], ways: Sequence[Way], parts: Parts, *, at: float, seconds: float, row_count: int,
    token_count: int,
) -> SweepFacts:  # fmt: skip
    """Return a sweep's facts. Args: records: of its rounds; ways: by rank; parts: as SweepPath.finish has them."""
    work = [[0.0, 0.0, 0.0, 0.0, 0.0] for _ in ways]
    gains: Parts = {}
    seen: Parts = {}
    halved = 0.0
    for record in records:
        for part in record.parts:
            for place, value in enumerate(_work(part)):
                work[part.rank][place] += value
        _gain(record, ways, gains, seen)
        halved += _halved(record, ways)
    for rank in range(len(ways)):
        _settle(rank, parts, gains, seen)
    nodes = tuple(NodeWork(one[0], one[1], one[2], one[3], int(one[4])) for one in work)
    return SweepFacts(at, seconds, row_count, token_count, parts, nodes, gains, halved)


def byte_count(part: RankRound) -> int:
    """Return the bytes of a message and its answer."""
    return part.sent_bytes + part.received_bytes


def _settle(rank: int, parts: Parts, gains: Parts, seen: Parts) -> None:
    """Give to waiting for a core as much of what looked like the disk, and of what nobody explained, as `parts` do."""
    disk, beyond = seen.get((rank, DISK), 0.0), seen.get((rank, BEYOND), 0.0)
    from_disk = disk - min(disk, parts.get((rank, DISK), 0.0))
    more = parts.get((rank, CORE_WAIT), 0.0) - seen.get((rank, CORE_WAIT), 0.0) - from_disk
    from_beyond = min(beyond, max(0.0, more))
    disk_gain, beyond_gain = gains.get((rank, DISK), 0.0), gains.pop((rank, BEYOND), 0.0)
    moved = disk_gain * from_disk / disk if disk else 0.0
    moved_beyond = beyond_gain * from_beyond / beyond if beyond else 0.0
    if disk_gain:
        gains[rank, DISK] = disk_gain - moved
    if moved or moved_beyond:
        gains[rank, CORE_WAIT] = gains.get((rank, CORE_WAIT), 0.0) + moved + moved_beyond


def _work(part: RankRound) -> tuple[float, float, float, float, int]:
    kernels = max(0, part.compute_nanoseconds)
    core_wait = min(max(0, part.core_wait_nanoseconds), kernels)
    disk, queue = max(0, part.tile_wait_nanoseconds), max(0, part.queue_nanoseconds)
    handling = max(part.handling_nanoseconds, kernels + disk)
    processor = max(0, handling - disk - queue - core_wait)
    return processor / 1e9, core_wait / 1e9, disk / 1e9, queue / 1e9, part.sent_bytes + part.received_bytes


def _gain(record: RoundRecord, ways: Sequence[Way], gains: Parts, seen: Parts) -> None:
    """Add what each thing that the last node waited for was worth in one round, and how much of it there was."""
    last = record.parts[-1]
    before = record.parts[-2].arrived if len(record.parts) > 1 else record.sent
    gap = max(0.0, last.arrived - max(before, record.sent))
    split = split_round(record, ways[last.rank].seconds(byte_count(last)))
    for cause, seconds in (
        (DISK, split.disk), (PROCESSOR, split.processor), (CORE_WAIT, split.core_wait), (QUEUE, split.queue),
        (LINK, split.link), (BEYOND, split.beyond),
    ):  # fmt: skip
        key = (last.rank, cause)
        seen[key] = seen.get(key, 0.0) + seconds
        gains[key] = gains.get(key, 0.0) + min(seconds, gap)


def _halved(record: RoundRecord, ways: Sequence[Way]) -> float:
    """Return how much sooner the last answer would have come if messages had half as many bytes."""
    last = sooner = 0.0
    for part in record.parts:
        outside = max(0.0, part.arrived - record.sent - max(0, part.handling_nanoseconds) / 1e9)
        way, whole = ways[part.rank], byte_count(part)
        took = way.seconds(whole)
        saved = min(outside, took) * (1 - way.seconds(whole / 2) / took) if took else 0.0
        last, sooner = max(last, part.arrived), max(sooner, part.arrived - saved)
    return last - sooner
