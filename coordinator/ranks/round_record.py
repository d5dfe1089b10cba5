"""What is known of one round once its sum is there: made once, looked at by everybody who keeps times.

    record = RoundRecord(...)          ranks.py makes it
    for observe in observers: observe(record)

Observers: metrics (round_metrics.py), limits of rounds (round_limits.py), the watch for slow nodes (slow_nodes.py) and
RoundTimes below, which benchmarks read. Instants are time.perf_counter's, all of one clock: this process's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from coordinator.ranks.transports.transport import Arrived
from protos.shardmesh.v1 import shard_pb2

Result = shard_pb2.BlockResult | shard_pb2.LayersResult


class RankRound(NamedTuple):
    """One rank's part in a round."""

    rank: int
    arrived: float
    """When its answer was there, whoever's was looked at first."""
    compute_nanoseconds: int
    """Of kernels, as the node says."""
    tile_wait_nanoseconds: int
    """Of waiting for weights, as the node says."""
    sent_bytes: int
    """Of the message to it; tensors in memory that both sides see are not in it."""
    received_bytes: int
    """Of its answer, likewise."""


def part_of(rank: int, arrived: Arrived, result: Result, sent_bytes: int) -> RankRound:
    """Return a rank's part, as its answer tells it."""
    return RankRound(
        rank=rank, arrived=arrived.at, compute_nanoseconds=result.compute_nanoseconds,
        tile_wait_nanoseconds=result.tile_wait_nanoseconds, sent_bytes=sent_bytes, received_bytes=arrived.byte_count,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRecord:
    """One round, or several layers at once on a node alone."""

    sweep_id: int
    sequence_ids: tuple[int, ...]
    """Whose rows it had."""
    kind: str
    """attention or ffn; layers: whole layers on one node."""
    layer: int
    layer_count: int
    row_count: int
    started: float
    """Before its first message was made."""
    sent: float
    """When the last message was handed over."""
    finished: float
    """When the sum was there."""
    parts: tuple[RankRound, ...]
    """Of every rank that took part, in the order in which their answers came."""

    @property
    def last(self) -> RankRound:
        """Return the part that all others waited for."""
        return self.parts[-1]

    @property
    def slowest(self) -> RankRound:
        """Return the part that took its node longest."""
        return max(self.parts, key=lambda part: part.compute_nanoseconds + part.tile_wait_nanoseconds)

    def waits(self) -> Iterator[tuple[int, float]]:
        """Yield (rank, seconds) by arrival: how long each answer was waited for after the one before it."""
        before = self.started
        for part in self.parts:
            yield part.rank, part.arrived - before
            before = part.arrived


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
    """Decoding and adding the parts."""

    def observe(self, record: RoundRecord) -> None:
        """Count one round."""
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
