"""Rounds that go as nearly all do, one after another in one call of C: few rows, packed, and all answer as they should.

    quick = QuickRounds(messages, sessions, past, taking_part)
    ran = quick.run(residual, next_block, sweep, hidden, output, call_id, tells_waits=False)
    ran.next_block, ran.output    # how far that has come, if any distance at all
    ran.asked                     # a round that was sent, and whoever called takes the answers; None: there is none

Covers: which rounds may go so, their records. Does not cover: running them (common/native/sweep.c), all other rounds
(ranks.py), which are not a way of their own: what C finds odd it leaves.

Why: between the last answer and the next message every node waits, and of what a round cost the coordinator a third was
Python's, between other processes' turns and out of cold caches.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from common.compute import matmul
from common.compute.residual import Residual
from common.native.address import address, address_or_none
from common.native.library import Outcome
from common.native.peers import Lane, Stretch, SweepBlock, SweptRound
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from common.wire.packed_round import DONE_BYTES, KIND_NUMBERS, NEXT_BYTES, TELLS_WAITS
from coordinator.ranks.past_rounds import PASS_ON_SECONDS, PastRounds
from coordinator.ranks.rank_sessions import RankSessions
from coordinator.ranks.round_limits import kind_of_round
from coordinator.ranks.round_messages import RoundMessages
from coordinator.ranks.round_record import ANSWERED_NUMBERS, PastStretch, block_at
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.exchange import Group

_TIMES = len(SweptRound._fields_)


class Asked(NamedTuple):
    """A round that was sent, and whose answers are not here, or not as such answers are."""

    rows: Floats
    """The block's normed input, float32 [row_count, hidden_size]."""
    started: float
    sent: float
    """When it began, and when it was sent (time.perf_counter)."""
    sent_bytes: int
    """Of each message."""


class Ran(NamedTuple):
    """What became of some rounds."""

    next_block: int
    """The one after the last that is done; the one that is `asked`."""
    output: Floats | None
    """Of the block before it, its late bias included; None: the residual stream has it."""
    asked: Asked | None


class QuickRounds:
    """Those of one run. Not safe for several threads."""

    def __init__(
        self, messages: RoundMessages, sessions: RankSessions, past: PastRounds,
        taking_part: Mapping[str, tuple[int, ...]],
    ) -> None:  # fmt: skip
        """Args: taking_part: ranks by kind of block."""
        self._messages, self._sessions, self._past, self._taking_part = messages, sessions, past, taking_part
        self._most_ranks = max(len(ranks) for ranks in taking_part.values())
        self._residual: Residual | None = None
        self._stretch, self._outcome = Stretch(most_ranks=self._most_ranks), ctypes.c_int()
        self._groups: list[Group] = []
        self._blocks: ctypes.Array[SweepBlock] = (SweepBlock * 0)()
        self._lanes: ctypes.Array[Lane] = (Lane * 0)()

    def run(
        self, residual: Residual, next_block: int, sweep: Sweep, hidden: Floats, output: Floats | None, call_id: int, *,
        tells_waits: bool,
    ) -> Ran:  # fmt: skip
        """Run rounds from a block on, as many as go so; their records are kept. Never raises.

        Args: hidden: the residual stream, float32 [row_count, hidden_size], changed in place; output: the last
            block's, not in it yet, changed in place; call_id: of the first one, each next one has one more.
        """
        if not self._can_run(sweep, hidden, output):
            return Ran(next_block, output, None)
        self._load(residual, hidden.shape[1])
        normed = np.empty_like(hidden)
        has_output, output = output is not None, np.empty_like(hidden) if output is None else output
        stretch = self._stretch
        stretch.sweep_id, stretch.flags = sweep.sweep_id, TELLS_WAITS if tells_waits else 0
        stretch.row_count, stretch.has_output = hidden.shape[0], has_output
        stretch.hidden, stretch.output, stretch.normed = address(hidden), address(output), address(normed)
        done, is_under_way = 0, True
        while is_under_way:
            count, asked = self._run(next_block + done, sweep, call_id + done, normed)
            done += count
            is_under_way = asked is None and next_block + done < len(self._blocks)
        return Ran(next_block + done, output if stretch.has_output else None, asked)

    def _can_run(self, sweep: Sweep, hidden: Floats, output: Floats | None) -> bool:
        """Tell whether C may run rounds of a sweep now; if so, who is asked is in _groups, by kind."""
        if not self._messages.are_quick(sweep, *hidden.shape):
            return False
        for one in (hidden, output):
            if one is not None and not (one.dtype == np.float32 and one.flags.c_contiguous and one.flags.writeable):
                return False
        groups = [self._sessions.quiet_group(self._taking_part[kind]) for kind in BLOCK_KINDS]
        self._groups = [group for group in groups if group is not None]
        return len(self._groups) == len(groups)

    def _load(self, residual: Residual, width: int) -> None:
        """Put down for C what lies between blocks, and who takes part in them, unless it has been."""
        if residual is self._residual:
            return
        vectors = [residual.blocks[kind] for kind in BLOCK_KINDS]
        self._blocks = (SweepBlock * sum(len(one.norms) for one in vectors))()
        for place, block in enumerate(self._blocks):
            layer, kind = block_at(place)
            norm, biases = residual.blocks[kind].norms[layer], residual.blocks[kind].late_biases
            block.norm, block.late_bias = address(norm), address_or_none(None if biases is None else biases[layer])
            block.kind, block.layer, block.lane = KIND_NUMBERS[kind], layer, BLOCK_KINDS.index(kind)
        self._lanes = (Lane * len(BLOCK_KINDS))(*[group.lane for group in self._groups])
        self._stretch.lanes = ctypes.pointer(self._lanes[0])
        self._stretch.width, self._stretch.norm_epsilon = width, residual.norm_epsilon
        self._residual = residual

    def _run(self, first_block: int, sweep: Sweep, call_id: int, normed: Floats) -> tuple[int, Asked | None]:
        """Run rounds for PASS_ON_SECONDS at most; return how many, and what is left of the one after them."""
        kind, row_count = block_at(first_block)[1], normed.shape[0]
        stretch, left, started = self._stretch, len(self._blocks) - first_block, time.perf_counter()
        times = np.empty((left, _TIMES), np.int64)
        answered = np.empty((left, self._most_ranks, ANSWERED_NUMBERS), np.int64)
        stretch.blocks = ctypes.pointer(self._blocks[first_block])
        stretch.block_count, stretch.first_call_id = left, call_id
        stretch.times, stretch.answered = address(times), address(answered)
        stretch.until_nanoseconds = int((started + PASS_ON_SECONDS) * 1e9)
        self._sessions.waiting_for(self._taking_part[kind][0], kind_of_round(kind, row_count), started)
        done: int = matmul.functions().shardmesh_run_stretch(stretch, self._outcome)
        sent_bytes = NEXT_BYTES + normed.nbytes
        if done:
            self._past.note(PastStretch(
                sweep, first_block, row_count, self._taking_part, times[:done], answered[:done], sent_bytes,
                DONE_BYTES + normed.nbytes,
            ))  # fmt: skip
        if self._outcome.value == Outcome.DONE:
            self._sessions.all_answered()
            self._past.pass_on_late(time.perf_counter())
            return done, None
        self._groups[(first_block + done) % len(BLOCK_KINDS)].give_back()
        began, sent, _ = (one / 1e9 for one in times[done].tolist())
        return done, Asked(normed, began, sent, sent_bytes)
