"""Do the sums of a sweep's rounds say what its rounds say one by one, to everybody who looks?

Covers: coordinator/ranks/round_table.py under the observers that every run has. Does not cover: what each of them makes
of it (tests/unit).
"""

from __future__ import annotations

import struct
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.weights.slice_format import ATTENTION, FFN
from coordinator.ranks import round_table
from coordinator.ranks.past_rounds import PastRounds, RoundTimes
from coordinator.ranks.round_limits import RoundLimits
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import PackedParts, PastRound, RoundRecord
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.round_table import FEW, Rounds
from coordinator.ranks.slow_nodes import SlowNodes, SlowNodeWatch
from coordinator.ranks.sweep import Sweep

NAMES = ("attic", "kitchen", "shed")
SWEEP = Sweep(sweep_id=3, segments=())
HOUR = 3_600_000_000_000


@st.composite
def past_rounds(draw: st.DrawFn) -> list[PastRound]:
    """Return rounds one after another: of two kinds and sizes, with two or three ranks, many ties, few to many."""
    found, now = list[PastRound](), 0
    for layer in range(draw(st.integers(1, 30))):
        kind, ranks = draw(st.sampled_from([(ATTENTION, (0, 1, 2)), (FFN, (0, 2))]))
        trips = [draw(st.sampled_from([0, 1, 70_000, 100_000, 250_000, 4_000_000, HOUR])) for _ in ranks]
        works = [draw(st.sampled_from([0, 1, 60_000])) for _ in ranks]
        packed = b"".join(
            struct.pack("@7q", now + trip, work, work // 2, 0, 0, 0, 0) for trip, work in zip(trips, works, strict=True)
        )
        finished = now + max(trips) + 10_000
        found.append(PastRound(
            SWEEP, kind, layer, 1, draw(st.sampled_from([1, 1, 1, 2])), now / 1e9, now / 1e9, finished / 1e9,
            PackedParts(ranks, packed, 100 + layer, 200 + layer),
        ))  # fmt: skip
        now = finished
    return found


def said(rounds: list[PastRound]) -> tuple[list[float], list[RoundRecord]]:
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
    for kept in (nodes._period.waited, limits._counts, limits._longest):
        numbers += [kept[key] for key in sorted(kept)]  # type: ignore[index, type-var]
    for key in sorted(nodes._period.rounds):  # type: ignore[type-var]
        numbers += nodes._period.rounds[key]
    return numbers, records


@given(rounds=past_rounds())
def test_sums_say_what_rounds_say_one_by_one(rounds: list[PastRound]) -> None:
    """Whatever came together or not, whoever was last or slowest among equals, and however many are alike."""
    found, records = said(rounds)
    with mock.patch.object(round_table, "FEW", len(rounds)):
        one_by_one, same = said(rounds)
    assert found == pytest.approx(one_by_one, rel=1e-9, abs=1e-9)
    assert records == same
    assert len(records) == len(rounds)


def test_what_is_alike_is_added_up_and_the_rest_stays_single() -> None:
    """Each round is in one of both; a kind of which there are few costs as much as a round."""
    answered = struct.pack("@7q", 5, 0, 0, 0, 0, 0, 0)
    kinds = [ATTENTION] * (FEW + 1) + [FFN] * FEW
    rounds = Rounds([
        PastRound(SWEEP, kind, 0, 1, 1, 0.0, 0.0, 1.0, PackedParts((0,), answered, 1, 1)) for kind in kinds
    ])  # fmt: skip
    (sums,) = rounds.sums()
    assert (sums.kind, len(sums.waited_seconds)) == (ATTENTION, FEW + 1)
    assert [record.kind for record in rounds.single()] == [FFN] * FEW
    assert [record.kind for record in rounds] == kinds
