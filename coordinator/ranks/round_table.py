"""The rounds of a sweep, once nobody waits for them: one record after another, or the sums of those that are alike.

    for sums in rounds.sums(): ...        # counters and limits: of those that are alike,
    for record in rounds.single(): ...    # and of the others
    for record in rounds: ...             # who looks at single rounds; each is made once, when somebody takes it

Covers: what observers are given. Does not cover: what is kept of a round (round_record.py), what observers make of it.

Why: of the coordinator's own work on a short round, records and their observers were a third, and nearly always all
that comes of them is sums: of a whole sweep these are one call of C for each kind of block (common/native/tally.c).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from common.compute import matmul
from common.native.address import address
from common.native.peers import RankSums, Tally
from common.weights.slice_format import BLOCK_KINDS
from coordinator.ranks.round_record import PastRound, PastStretch, RoundRecord, block_at, record_of
from coordinator.ranks.round_series import ROUND_SECONDS

BUCKETS = len(ROUND_SECONDS) + 1
_BOUNDS = np.array(ROUND_SECONDS)
FEW = 4
"""Rounds: so many are looked at one by one, since sums take as long for one as for twenty."""


class RoundSums(NamedTuple):
    """Rounds of one kind, of as many rows, in which the same ranks took part, added up; lists are by place in ranks."""

    kind: str
    row_count: int
    ranks: tuple[int, ...]
    waited_seconds: list[float]
    """From the first byte to the last answer: of each round, the oldest first."""
    trip_counts: list[list[int]]
    """Of times until this rank's answer, by bucket of ROUND_SECONDS, the one above the last bound too."""
    trip_seconds: list[float]
    """Of these, all together."""
    wait_seconds: list[float]
    """How long this rank's answers were waited for after the ones before them."""
    slowest_counts: list[int]
    """In how many rounds it worked, or waited for weights, longest."""
    last_counts: list[int]
    """In how many rounds everybody waited for its answer last."""
    sent_bytes: list[int]
    received_bytes: list[int]
    seconds: float
    """From the first byte to the sum."""
    compute_nanoseconds: int
    """Of the slowest rank of each round."""
    tile_wait_nanoseconds: int
    """Likewise."""


class Rounds:
    """Some rounds that are over, the oldest first."""

    def __init__(self, past: Sequence[PastRound | PastStretch]) -> None:
        self._past = past
        self._records: dict[tuple[int, int], RoundRecord] = {}
        self._sorted: tuple[list[RoundSums], list[RoundRecord]] | None = None

    def __iter__(self) -> Iterator[RoundRecord]:
        for number, past in enumerate(self._past):
            for place in range(len(past.times) if isinstance(past, PastStretch) else 1):
                yield self._record(number, place)

    def _record(self, number: int, place: int) -> RoundRecord:
        found = self._records.get((number, place))
        if found is None:
            past = self._past[number]
            found = record_of(past.round(place) if isinstance(past, PastStretch) else past)
            self._records[number, place] = found
        return found

    def sums(self) -> list[RoundSums]:
        """Return those of which enough are alike."""
        return (self._sorted or self._sort())[0]

    def single(self) -> list[RoundRecord]:
        """Return those that are not in `sums`."""
        return (self._sorted or self._sort())[1]

    def _sort(self) -> tuple[list[RoundSums], list[RoundRecord]]:
        all_sums, few = list[RoundSums](), list[RoundRecord]()
        for number, past in enumerate(self._past):
            if not isinstance(past, PastStretch):
                few.append(self._record(number, 0))
                continue
            count, left = len(past.times), list[int]()
            for first in range(min(len(BLOCK_KINDS), count)):
                places = range(first, count, len(BLOCK_KINDS))
                if len(places) > FEW:
                    all_sums.append(sums_of(past, first))
                else:
                    left += places
            few += [self._record(number, place) for place in sorted(left)]
        self._sorted = all_sums, few
        return self._sorted


def sums_of(past: PastStretch, first: int) -> RoundSums:
    """Return the sums of the rounds of one kind of block. Args: first: the place of the first of them."""
    kind, step, left = block_at(past.first_block + first)[1], len(BLOCK_KINDS), len(past.times) - first
    ranks, most_ranks = past.ranks[kind], past.answered.shape[1]
    count, r = -(-left // step), len(ranks)
    counts, waited = np.zeros((r, BUCKETS), np.int64), np.empty(count)
    of_ranks = (RankSums * r)()
    tally = Tally(r, most_ranks, address(_BOUNDS), len(_BOUNDS), address(counts), ctypes.pointer(of_ranks[0]))
    assert past.times.flags.c_contiguous
    assert past.answered.flags.c_contiguous
    matmul.functions().shardmesh_tally(
        tally, address(past.times[first:]), address(past.answered[first:]), left, step, address(waited)
    )
    return RoundSums(
        kind, past.row_count, ranks, waited.tolist(), counts.tolist(), [one.trip_seconds for one in of_ranks],
        [one.wait_seconds for one in of_ranks], [one.slowest_count for one in of_ranks],
        [one.last_count for one in of_ranks], [count * past.sent_bytes] * r, [count * past.received_bytes] * r,
        tally.seconds, tally.compute_nanoseconds, tally.tile_wait_nanoseconds,
    )  # fmt: skip
