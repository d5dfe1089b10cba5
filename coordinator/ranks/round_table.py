"""The rounds of a sweep, once nobody waits for them: one record after another, or the sums of those that are alike.

    for sums in rounds.sums(): ...        # counters and limits: of those that are alike,
    for record in rounds.single(): ...    # and of the others
    for record in rounds: ...             # who looks at single rounds; each is made once, when somebody takes it

Covers: what observers are given. Does not cover: what is kept of a round (round_record.py), what observers make of it.

Why: of the coordinator's own work on a short round, records and their observers were a third, and nearly always all
that comes of them is sums: of a whole sweep these are a few operations on arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from coordinator.ranks.round_record import ANSWERED_NUMBERS, PackedParts, PastRound, RoundRecord, record_of
from coordinator.ranks.round_series import ROUND_SECONDS

BUCKETS = len(ROUND_SECONDS) + 1
_BOUNDS = np.array(ROUND_SECONDS)
FEW = 4
"""Rounds: so many are looked at one by one, since arrays take as long for one as for twenty."""


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

    def __init__(self, past: Sequence[PastRound]) -> None:
        self._past = past
        self._records: dict[int, RoundRecord] = {}
        self._sorted: tuple[list[RoundSums], list[RoundRecord]] | None = None

    def __iter__(self) -> Iterator[RoundRecord]:
        for place in range(len(self._past)):
            yield self._record(place)

    def _record(self, place: int) -> RoundRecord:
        found = self._records.get(place)
        if found is None:
            found = self._records[place] = record_of(self._past[place])
        return found

    def sums(self) -> list[RoundSums]:
        """Return those of which enough are alike."""
        return (self._sorted or self._sort())[0]

    def single(self) -> list[RoundRecord]:
        """Return those that are not in `sums`."""
        return (self._sorted or self._sort())[1]

    def _sort(self) -> tuple[list[RoundSums], list[RoundRecord]]:
        if len(self._past) <= FEW:
            self._sorted = [], list(self)
            return self._sorted
        alike: dict[object, list[int]] = {}
        for place, past in enumerate(self._past):
            packed = past.parts if isinstance(past.parts, PackedParts) else None
            alike.setdefault(packed and (past.kind, past.row_count, packed.ranks), []).append(place)
        few = sorted(place for key, places in alike.items() if key is None or len(places) <= FEW for place in places)
        self._sorted = (
            [sums_of([self._past[place] for place in places]) for key, places in alike.items()
             if key is not None and len(places) > FEW],
            [self._record(place) for place in few],
        )  # fmt: skip
        return self._sorted


def sums_of(rounds: Sequence[PastRound]) -> RoundSums:
    """Return the sums of rounds that are alike, all packed. Axes: n rounds, r ranks by place."""
    all_parts = [past.parts for past in rounds if isinstance(past.parts, PackedParts)]
    ranks = all_parts[0].ranks
    n, r = len(rounds), len(ranks)
    times = np.array([(past.started, past.finished) for past in rounds])
    started = times[:, 0]
    answered = np.frombuffer(b"".join([parts.answered for parts in all_parts]), np.int64).reshape(
        n, r, ANSWERED_NUMBERS
    )
    arrived = answered[:, :, 0] / 1e9  # [n, r], as all below
    trips = arrived - started[:, np.newaxis]
    buckets = _BOUNDS.searchsorted(trips)
    buckets += np.arange(0, r * BUCKETS, BUCKETS)
    counts = np.bincount(buckets.ravel(), minlength=r * BUCKETS).reshape(r, BUCKETS)
    order = arrived.argsort(axis=1, kind="stable")
    in_order = trips.ravel()[order + np.arange(0, n * r, r)[:, np.newaxis]]
    waits = in_order.copy()
    waits[:, 1:] -= in_order[:, :-1]
    work = answered[:, :, 1] + answered[:, :, 2]
    slowest = work.argmax(axis=1)
    of_slowest = answered[np.arange(n), slowest].sum(axis=0)
    sent, received = sum([parts.sent_bytes for parts in all_parts]), sum([parts.received_bytes for parts in all_parts])
    return RoundSums(
        rounds[0].kind, rounds[0].row_count, ranks, in_order[:, -1].tolist(), counts.tolist(),
        trips.sum(axis=0).tolist(), np.bincount(order.ravel(), waits.ravel(), r).tolist(),
        np.bincount(slowest, minlength=r).tolist(), np.bincount(order[:, -1], minlength=r).tolist(), [sent] * r,
        [received] * r, float(times[:, 1].sum() - started.sum()), int(of_slowest[1]), int(of_slowest[2]),
    )  # fmt: skip
