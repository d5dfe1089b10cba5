"""Do series of rounds take from a record what they say, with next to no work for it?

Covers: coordinator/ranks/round_metrics.py. Does not cover: how long it takes on a clock (tests/bench/observers.py).
"""

from __future__ import annotations

import sys
from types import FrameType

from common.errors import NodeFault, NodeLost
from coordinator.ranks.round_metrics import RoundMetrics
from coordinator.ranks.round_record import PastRound, RankRound
from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.round_table import Rounds
from coordinator.ranks.sweep import Sweep
from coordinator.ranks.transports.carriers import FRAMES, GRPC, OVER_GRPC, Carrier

NAMES = ("attic", "kitchen", "shed")


def rounds_of(arrivals: dict[int, float], slowest: int) -> Rounds:
    """Return a round that began at 10 s. Args: arrivals: by rank."""
    parts = [RankRound(rank, at, 5 + (rank == slowest), 0, 100 + rank, 200 + rank) for rank, at in arrivals.items()]
    return Rounds([PastRound(Sweep(sweep_id=1, segments=()), "ffn", 0, 1, 1, 10.0, 10.0, 12.0, parts)])


def test_each_node_has_its_part_of_each_round() -> None:
    """Trips, bytes of both ways, who worked longest and who came last; a node that had no part has nothing."""
    series = RoundSeries()
    metrics = RoundMetrics(series, NAMES)
    metrics.observe(rounds_of({1: 10.002, 0: 10.02}, slowest=1))
    metrics.observe(rounds_of({0: 10.002, 1: 10.2}, slowest=1))
    assert [sum(series.round_trip_seconds.of(name).counts) for name in NAMES] == [2, 2, 0]
    assert abs(series.round_trip_seconds.of("kitchen").total - 0.202) < 1e-9
    assert [series.sent_bytes.of(name).value for name in NAMES] == [200, 202, 0]
    assert [series.received_bytes.of(name).value for name in NAMES] == [400, 402, 0]
    assert [series.slowest_rounds.of(name).value for name in NAMES] == [0, 2, 0]
    assert [series.last_rounds.of(name).value for name in NAMES] == [1, 1, 0]


def test_a_round_costs_two_calls_a_rank_whatever_series_there_are() -> None:
    """No lock, no label looked up: a token takes hundreds of rounds. The library's own series took 23 a rank."""
    metrics, rounds = RoundMetrics(RoundSeries(), NAMES), rounds_of({1: 10.002, 0: 10.02, 2: 10.03}, slowest=1)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    assert len(rounds.single()) == 1, "which is made for everybody, once"
    sys.setprofile(count)
    try:
        metrics.observe(rounds)
    finally:
        sys.setprofile(None)
    itself, single, sums, ended, last = 2, 1, 1, 1, 1
    assert calls <= 2 * len(NAMES) + itself + single + sums + ended + last


def carried(series: RoundSeries, node: str) -> dict[str, float]:
    """Return a node's series of what carries its rounds, by transport."""
    (family,) = series.transport.collect()
    return {one.labels["transport"]: one.value for one in family.samples if one.labels["node"] == node}


def test_what_carries_rounds_is_one_of_three_until_sessions_end() -> None:
    """And whether it was meant: gRPC that was asked for is no fallback. They go with the node."""
    series, names = RoundSeries(), ("attic", "kitchen")
    carriers = [Carrier(FRAMES), Carrier(GRPC, is_fallback=True, port=50061)]
    series.carried(names, carriers, is_open=True)
    assert carried(series, "attic") == {"direct": 0, "frames": 1, "grpc": 0}
    assert carried(series, "kitchen") == {"direct": 0, "frames": 0, "grpc": 1}
    assert [series.fell_back.of(name).value for name in names] == [0, 1]
    series.carried(names, [Carrier(FRAMES), OVER_GRPC], is_open=True)
    assert [series.fell_back.of(name).value for name in names] == [0, 0]
    series.carried(names, carriers, is_open=False)
    assert set(carried(series, "kitchen").values()) == {0.0} == {series.fell_back.of("kitchen").value}
    series.is_member = lambda name: name == "attic"
    assert carried(series, "kitchen") == {}


def test_a_failure_is_the_nodes_and_nobodys_where_only_the_sum_is_wrong() -> None:
    """The label is empty then, and stays though no node is called so."""
    series = RoundSeries()
    series.is_member = lambda name: name == "attic"
    series.failed("attic", NodeLost("gone"))
    series.failed("", NodeFault("not finite"))
    series.failed("shed", NodeLost("gone"))
    (family,) = series.node_failures.collect()
    assert {(sample.labels["node"], sample.labels["reason"]) for sample in family.samples} == {
        ("attic", "NODE_LOST"), ("", "NODE_FAULT")
    }  # fmt: skip
