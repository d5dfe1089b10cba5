"""A round that goes as nearly all do, in one call of C: a few rows, a packed message, and all answer as they should.

    quick = QuickRounds(messages, sessions, past)
    tried = quick.run(...)        # None: not such a round, nothing has happened
    tried.total                   # the sum of all parts; None: asked, and whoever called takes the answers

Covers: which rounds may go so, the sum, the round's record. Does not cover: the call itself (common/native/rounds.c,
transports/exchange.py), all other rounds (ranks.py), which are not a way of their own: what C finds odd it leaves.

Why: between the last answer and the next message every node waits, and of what a round cost the coordinator half was
Python's, four times over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from common.weights.stored_numbers import Floats
from common.wire.packed_round import DONE_BYTES, NEXT_BYTES
from coordinator.ranks.past_rounds import PastRounds
from coordinator.ranks.rank_sessions import RankSessions
from coordinator.ranks.round_limits import kind_of_round
from coordinator.ranks.round_messages import RoundMessages
from coordinator.ranks.round_record import PackedParts, PastRound
from coordinator.ranks.sweep import Sweep


class Tried(NamedTuple):
    """A round that was sent so."""

    total: Floats | None
    """float32 [row_count, hidden_size], finite; None: some answer is not here, or not like that."""
    sent: float
    """When that was done (time.perf_counter)."""
    sent_bytes: int
    """Of each message."""


class QuickRounds:
    """Those of one run. Not safe for several threads."""

    def __init__(
        self, messages: RoundMessages, sessions: RankSessions, past: PastRounds,
        taking_part: Mapping[str, tuple[int, ...]],
    ) -> None:  # fmt: skip
        """Args: taking_part: ranks by kind of block."""
        self._messages, self._sessions, self._past, self._taking_part = messages, sessions, past, taking_part

    def run(
        self, kind: str, layer: int, sweep: Sweep, rows: Floats, call_id: int, started: float, *, tells_waits: bool
    ) -> Tried | None:  # fmt: skip
        """Run a round, if it is one of these; its record is kept where it goes well. Never raises.

        Args: rows: float32 [row_count, hidden_size]; started: when it began (time.perf_counter).
        """
        head = self._messages.quick_head(kind, layer, sweep, rows, call_id, tells_waits=tells_waits)
        if head is None:
            return None
        ranks, row_count = self._taking_part[kind], rows.shape[0]
        group = self._sessions.quiet_group(ranks, kind_of_round(kind, row_count), started)
        if group is None:
            return None
        total = np.empty(rows.shape, np.float32)
        answered = group.run(head, rows, total)
        byte_count = rows.nbytes
        if answered is None:
            return Tried(None, group.sent, NEXT_BYTES + byte_count)
        self._sessions.all_answered(ranks)
        finished, sent = time.perf_counter(), group.sent
        parts = PackedParts(ranks, answered, NEXT_BYTES + byte_count, DONE_BYTES + byte_count)
        self._past.note(PastRound(sweep, kind, layer, 1, row_count, started, sent, finished, parts))
        self._past.pass_on_late(finished)
        return Tried(total, sent, NEXT_BYTES + byte_count)
