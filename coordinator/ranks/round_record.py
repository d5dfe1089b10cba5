"""What is known of one round once its sum is there: kept as it is, made into a record when somebody looks.

Covers: numbers only. Does not cover: who looks, and when (past_rounds.py), many rounds at once (round_table.py).
Instants are time.perf_counter's, all of one clock: this process's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.native.peers import Answered
from common.weights.slice_format import BLOCK_KINDS
from common.wire.packed_round import BlockDone
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.transport import Arrived
from protos.shardmesh.v1 import shard_pb2

_ARRIVED = attrgetter("arrived")
ANSWERED_NUMBERS = len(Answered._fields_)
Result = shard_pb2.BlockResult | shard_pb2.LayersResult | BlockDone


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
    handling_nanoseconds: int = 0
    """From the message being there to the answer being made, as the node says; 0: neither this nor the rest."""
    queue_nanoseconds: int = 0
    """Of it, while other sessions' blocks were computed."""
    core_wait_nanoseconds: int = 0
    """Of it, while the thread that made the answer, or one that helped it, had no core."""
    starved_nanoseconds: int = 0
    """How long its threads, each by itself, had no core so far; 0 but in a sweep's first round."""


class RoundRecord(NamedTuple):
    """One round, or several layers at once on a node alone. Not changed once it is made."""

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
    slowest: RankRound
    """Of these, the one that took its node longest."""

    @property
    def last(self) -> RankRound:
        """Return the part that all others waited for."""
        return self.parts[-1]

    def waits(self) -> Iterator[tuple[int, float]]:
        """Yield (rank, seconds) by arrival: how long each answer was waited for after the one before it."""
        before = self.started
        for part in self.parts:
            yield part.rank, part.arrived - before
            before = part.arrived


class PastRound(NamedTuple):
    """What a record is made of, once there is time for it: numbers only, so that no answer's tensors are kept."""

    sweep: Sweep
    kind: str
    layer: int
    layer_count: int
    row_count: int
    started: float
    sent: float
    finished: float
    parts: Sequence[RankRound]
    """In the order of ranks."""


class PastStretch(NamedTuple):
    """Rounds that C has run one after another, as it has put them down: taken apart when somebody looks."""

    sweep: Sweep
    first_block: int
    """Of all blocks in their order, that of the first round."""
    row_count: int
    ranks: Mapping[str, tuple[int, ...]]
    """Who takes part, by kind of block."""
    times: npt.NDArray[np.int64]
    """`struct swept_round` of sweep.h, [round_count, 3]."""
    answered: npt.NDArray[np.int64]
    """`struct answered` of exchange.h by place in `ranks`, [round_count, most of them, ANSWERED_NUMBERS]."""
    sent_bytes: int
    received_bytes: int
    """Of each message, and of each answer."""

    @property
    def started(self) -> float:
        """When its first round began."""
        return float(self.times[0, 0]) / 1e9

    def round(self, place: int) -> PastRound:
        """Return one round. Args: place: from 0 on."""
        layer, kind = block_at(self.first_block + place)
        started, sent, finished = (one / 1e9 for one in self.times[place].tolist())
        parts = [
            RankRound(rank, came / 1e9, computed, tile_waited, self.sent_bytes, self.received_bytes, *waits)
            for rank, (came, computed, tile_waited, *waits) in zip(
                self.ranks[kind], self.answered[place].tolist(), strict=False
            )
        ]
        return PastRound(self.sweep, kind, layer, 1, self.row_count, started, sent, finished, parts)


def block_at(place: int) -> tuple[int, str]:
    """Return layer and kind of a block. Args: place: among all blocks, in the order in which they are run."""
    layer, of_layer = divmod(place, len(BLOCK_KINDS))
    return layer, BLOCK_KINDS[of_layer]


def record_of(past: PastRound) -> RoundRecord:
    """Return the record of a round."""
    work = [part.compute_nanoseconds + part.tile_wait_nanoseconds for part in past.parts]
    return RoundRecord(
        past.sweep.sweep_id, past.sweep.sequence_ids, past.kind, past.layer, past.layer_count, past.row_count,
        past.started, past.sent, past.finished, tuple(sorted(past.parts, key=_ARRIVED)),
        past.parts[work.index(max(work))],
    )  # fmt: skip


def parts_of(
    ranks: Sequence[int], answers: Sequence[Arrived], results: Sequence[Result], sent_bytes: Mapping[int, int], *,
    with_waits: bool,
) -> list[RankRound]:  # fmt: skip
    """Return what there is to know of each rank's part.

    Args: answers, results: of `ranks`; sent_bytes: by rank; with_waits: whether anybody looks at how nodes have waited.
    """
    if not with_waits:
        return [
            RankRound(
                rank, answer.at, result.compute_nanoseconds, result.tile_wait_nanoseconds, sent_bytes[rank],
                answer.byte_count,
            )
            for rank, answer, result in zip(ranks, answers, results, strict=True)
        ]  # fmt: skip
    return [
        RankRound(
            rank, answer.at, result.compute_nanoseconds, result.tile_wait_nanoseconds, sent_bytes[rank],
            answer.byte_count, result.handling_nanoseconds, result.queue_nanoseconds, result.core_wait_nanoseconds,
            result.starved_nanoseconds,
        )
        for rank, answer, result in zip(ranks, answers, results, strict=True)
    ]  # fmt: skip
