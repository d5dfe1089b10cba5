"""Do the sums of a sweep's rounds say what its rounds say one by one, to everybody who looks?

Covers: coordinator/ranks/round_table.py under the observers that every run has. Does not cover: what each of them makes
of it (tests/unit).
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.weights.slice_format import ATTENTION, FFN
from coordinator.ranks import round_table
from coordinator.ranks.past_rounds import PastRounds, RoundTimes
from coordinator.ranks.round_limits import RoundLimits
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import PastRound, PastStretch, RoundRecord
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.round_table import FEW, Rounds
from coordinator.ranks.slow_nodes import SlowNodes, SlowNodeWatch
from coordinator.ranks.sweep import Sweep

NAMES = ("attic", "kitchen", "shed")
SWEEP = Sweep(sweep_id=3, segments=())
HOUR = 3_600_000_000_000
MANY = 1000
TAKING_PART = {ATTENTION: (0, 1, 2), FFN: (0, 2)}


@st.composite
def past_rounds(draw: st.DrawFn) -> list[PastRound | PastStretch]:
    """Return rounds one after another, many at once or alone: of two kinds and sizes, with many ties, few to many."""
    found, now, place = list[PastRound | PastStretch](), 0, 0
    for _ in range(draw(st.integers(1, 3))):
        times, answered = list[list[int]](), list[list[list[int]]]()
        for _ in range(draw(st.integers(1, 12))):
            trips = [draw(st.sampled_from([0, 1, 70_000, 100_000, 250_000, 4_000_000, HOUR])) for _ in NAMES]
            works = [draw(st.sampled_from([0, 1, 60_000])) for _ in NAMES]
            times.append([now, now, now + max(trips) + 10_000])
            answered.append([
                [now + trip, work, work // 2, 0, 0, 0, 0] for trip, work in zip(trips, works, strict=True)
            ])  # fmt: skip
            now = times[-1][-1]
        stretch = PastStretch(
            SWEEP, place, draw(st.sampled_from([1, 1, 1, 2])), TAKING_PART, np.array(times), np.array(answered),
            100 + place, 200 + place,
        )  # fmt: skip
        found += [stretch] if draw(st.booleans()) else [stretch.round(one) for one in range(len(times))]
        place += len(times)
    return found


def said(rounds: list[PastRound | PastStretch]) -> tuple[list[float], list[RoundRecord]]:
    """Return all numbers that observers have after a sweep, and what one sees who looks at single rounds."""
    series, limits, times, records = RoundSeries(), RoundLimits(), RoundTimes(), list[RoundRecord]()
    watch = SlowNodeWatch(NAMES, lambda text: None)
    nodes = watch._nodes = SlowNodes()
    past = PastRounds([
        RoundMetrics(series, NAMES).observe, watch.observe, limits.observe, times.observe, records.extend
    ])  # fmt: skip
    for one in rounds:
        past.note(one)
    past.pass_on()
    numbers: list[float] = [times.round_count, times.total, times.tile_wait, times.kernel, times.reduction]
    for name in NAMES:
        trips = series.round_trip_seconds.of(name)
        counters = (series.sent_bytes, series.received_bytes, series.slowest_rounds, series.last_rounds)
        numbers += [*trips.counts, trips.total, *(counter.of(name).value for counter in counters)]
    for kept in (nodes._period.waited, limits._counts):
        numbers += [kept[key] for key in sorted(kept)]  # type: ignore[index]
    # What is forgotten of the longest depends on how many come after it, and those that are added up come last.
    numbers += [limits.seconds(kind, count) for kind in (ATTENTION, FFN) for count in (1, 2)]
    for key in sorted(nodes._period.rounds):  # type: ignore[type-var]
        numbers += nodes._period.rounds[key]
    return numbers, records


@given(rounds=past_rounds())
def test_sums_say_what_rounds_say_one_by_one(rounds: list[PastRound | PastStretch]) -> None:
    """Whatever came together or not, whoever was last or slowest among equals, and however many are alike."""
    found, records = said(rounds)
    with mock.patch.object(round_table, "FEW", MANY):
        one_by_one, same = said(rounds)
    assert found == pytest.approx(one_by_one, rel=1e-9, abs=1e-9)
    assert records == same
    assert len(records) == sum(len(one.times) if isinstance(one, PastStretch) else 1 for one in rounds)


def test_what_is_alike_is_added_up_and_the_rest_stays_single() -> None:
    """Each round is in one of both; a kind of which there are few costs as much as a round."""
    stretch = PastStretch(
        SWEEP, 0, 1, TAKING_PART, np.zeros((2 * FEW + 1, 3), np.int64), np.zeros((2 * FEW + 1, 3, 7), np.int64), 1, 1
    )  # fmt: skip
    rounds = Rounds([stretch.round(0), stretch, stretch.round(1)])
    (sums,) = rounds.sums()
    assert (sums.kind, sums.ranks, len(sums.waited_seconds)) == (ATTENTION, (0, 1, 2), FEW + 1)
    assert [record.kind for record in rounds.single()] == [ATTENTION] + [FFN] * (FEW + 1)
    assert [record.kind for record in rounds] == [ATTENTION, *[ATTENTION, FFN] * FEW, ATTENTION, FFN]
