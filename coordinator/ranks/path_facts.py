"""What did every node do in one sweep, and how much sooner would it have ended without what? For advice. Pure.

Covers: all nodes and not only the last one of each round; what an answer's coming sooner would have been worth, round
by round: no more than until the next to last came. Does not cover: what to advise (answering/advice.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.ranks.critical_path import CORE_WAIT, DISK, LINK, PROCESSOR, QUEUE, Parts, split_round
from coordinator.ranks.round_record import RankRound, RoundRecord
from coordinator.ranks.transports.echo import Link


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
    records: Sequence[RoundRecord], links: Sequence[Link], parts: Parts, *, at: float, seconds: float, row_count: int,
    token_count: int,
) -> SweepFacts:  # fmt: skip
    """Return a sweep's facts. Args: records: of its rounds; links: by rank; parts: as SweepPath.finish has them."""
    work = [[0.0, 0.0, 0.0, 0.0, 0.0] for _ in links]
    gains: Parts = {}
    halved = 0.0
    for record in records:
        for part in record.parts:
            for place, value in enumerate(_work(part)):
                work[part.rank][place] += value
        _gain(record, links, gains)
        halved += _halved(record, links)
    beyond = {rank: gains.pop((rank, "beyond"), 0.0) for rank in range(len(links))}
    for rank, seconds_beyond in beyond.items():  # as much of it as `finish` has found to be the node's
        own = parts.get((rank, CORE_WAIT), 0.0)
        in_kernels = sum(split_round(one, 0.0).core_wait for one in records if one.parts[-1].rank == rank)
        gains[rank, CORE_WAIT] = gains.get((rank, CORE_WAIT), 0.0) + min(seconds_beyond, max(0.0, own - in_kernels))
    nodes = tuple(NodeWork(one[0], one[1], one[2], one[3], int(one[4])) for one in work)
    return SweepFacts(at, seconds, row_count, token_count, parts, nodes, gains, halved)


def link_seconds(part: RankRound, link: Link) -> float:
    """Return what an echo of a message and its answer would take."""
    return link.round_trip_seconds + (part.sent_bytes + part.received_bytes) / link.bytes_per_second


def _work(part: RankRound) -> tuple[float, float, float, float, int]:
    kernels = max(0, part.compute_nanoseconds)
    core_wait = min(max(0, part.core_wait_nanoseconds), kernels)
    disk, queue = max(0, part.tile_wait_nanoseconds), max(0, part.queue_nanoseconds)
    handling = max(part.handling_nanoseconds, kernels + disk)
    processor = max(0, handling - disk - queue - core_wait)
    return processor / 1e9, core_wait / 1e9, disk / 1e9, queue / 1e9, part.sent_bytes + part.received_bytes


def _gain(record: RoundRecord, links: Sequence[Link], gains: Parts) -> None:
    """Add what each thing that the last node waited for was worth in one round."""
    last = record.parts[-1]
    before = record.parts[-2].arrived if len(record.parts) > 1 else record.sent
    gap = max(0.0, last.arrived - max(before, record.sent))
    split = split_round(record, link_seconds(last, links[last.rank]))
    for cause, seconds in (
        (DISK, split.disk), (PROCESSOR, split.processor), (CORE_WAIT, split.core_wait), (QUEUE, split.queue),
        (LINK, split.link), ("beyond", split.beyond),
    ):  # fmt: skip
        gains[last.rank, cause] = gains.get((last.rank, cause), 0.0) + min(seconds, gap)


def _halved(record: RoundRecord, links: Sequence[Link]) -> float:
    last = sooner = 0.0
    for part in record.parts:
        outside = max(0.0, part.arrived - record.sent - max(0, part.handling_nanoseconds) / 1e9)
        saved = min(outside, (part.sent_bytes + part.received_bytes) / 2 / links[part.rank].bytes_per_second)
        last, sooner = max(last, part.arrived), max(sooner, part.arrived - saved)
    return last - sooner
