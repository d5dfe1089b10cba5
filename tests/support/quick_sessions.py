"""Rounds that C runs, over sessions that a test has made: as much of RankSessions and RoundMessages as they need.

    sweeping = Sweeping(sessions)
    ran = sweeping.run(hidden)

Covers: a model of LAYERS layers with norms and late biases, all ranks in every block. Does not cover: which rounds may
go so (coordinator/ranks/round_messages.py, coordinator/ranks/rank_sessions.py), nodes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import cast

import numpy as np

from common.compute.residual import LayerVectors, Residual
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from common.wire.packed_round import NextBlock, pack_next
from coordinator.ranks.past_rounds import PastRounds
from coordinator.ranks.quick_rounds import QuickRounds, Ran
from coordinator.ranks.rank_sessions import RankSessions
from coordinator.ranks.round_messages import RoundMessages
from coordinator.ranks.round_record import RoundRecord, block_at
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.exchange import Exchanged, Group

LAYERS, SWEEP_ID, CALL_ID = 2, 2, 7
BLOCKS = LAYERS * len(BLOCK_KINDS)


def residual_of(width: int) -> Residual:
    """Return norms and late biases, no two alike."""
    random = np.random.default_rng(5)
    blocks = {
        kind: LayerVectors(
            norms=[random.standard_normal(width).astype(np.float32) for _ in range(LAYERS)],
            late_biases=[random.standard_normal(width).astype(np.float32) for _ in range(LAYERS)],
        )
        for kind in BLOCK_KINDS
    }
    return Residual(blocks=blocks, norm_epsilon=1e-5)


def step_by_step(hidden: Floats, sums: Sequence[Floats]) -> Iterator[tuple[bytes, Floats]]:
    """Yield each block's message and the residual stream that it finds, as Python makes them. Args: sums: by block."""
    residual, hidden, output = residual_of(hidden.shape[1]), hidden.copy(), None
    for place, total in enumerate(sums):
        layer, kind = block_at(place)
        rows = residual.block_input(kind, layer, hidden, output)
        output = total.copy()
        residual.finish(kind, layer, output)
        yield head_of(place) + rows.tobytes(), hidden.copy()


def head_of(place: int) -> bytes:
    """Return what rows follow in the message of a block."""
    layer, kind = block_at(place)
    return pack_next(NextBlock(CALL_ID + place, SWEEP_ID, kind, layer, is_in_memory=False, tells_waits=False))


class Sweeping:
    """Quick rounds of one sweep, with their records."""

    def __init__(self, sessions: Sequence[Exchanged]) -> None:
        ranks = tuple(range(len(sessions)))
        self._group, self.records = Group(sessions), list[RoundRecord]()
        self._past = PastRounds([self.records.extend])
        self._quick = QuickRounds(
            cast("RoundMessages", self), cast("RankSessions", self), self._past, dict.fromkeys(BLOCK_KINDS, ranks)
        )
        self.is_waiting = False

    def run(self, hidden: Floats, first_block: int = 0) -> Ran:
        """Run the rounds from a block on; `hidden` is changed, and `records` has all that are over."""
        sweep = Sweep(sweep_id=SWEEP_ID, segments=())
        residual, call_id = residual_of(hidden.shape[1]), CALL_ID + first_block
        ran = self._quick.run(residual, first_block, sweep, hidden, None, call_id, tells_waits=False)
        self._past.pass_on()
        return ran

    def are_quick(self, sweep: Sweep, row_count: int, width: int) -> bool:
        """See RoundMessages."""
        return True

    def quiet_group(self, ranks: tuple[int, ...]) -> Group:
        """See RankSessions."""
        return self._group

    def waiting_for(self, rank: int, of_a_kind: Hashable, since: float) -> None:
        """See RankSessions."""
        self.is_waiting = True

    def all_answered(self) -> None:
        """See RankSessions."""
        self.is_waiting = False
