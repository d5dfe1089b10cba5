"""Do the parts of a round, and of a sweep, add up to it, and does each go to whom it belongs?

Covers: coordinator/ranks/critical_path.py, coordinator/ranks/path_facts.py. Does not cover: what nodes tell, measuring
links (tests/unit/test_link_watch.py), a mesh that is slowed (tests/observed/test_why.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.ranks.critical_path import (
    CAUSES,
    COORDINATOR,
    CORE_WAIT,
    DISK,
    LINK,
    OWN,
    UNKNOWN,
    Parts,
    StarvedShare,
    SweepPath,
    split_round,
)
from coordinator.ranks.path_facts import facts_of
from coordinator.ranks.round_record import RankRound, RoundRecord
from coordinator.ranks.transports.echo import Way

TINY = 1e-9
WAY = Way(points=((0.0, 0.002), (1e6, 1.002)))
HOSTILE = st.integers(-(1 << 62), 1 << 62)
NANOSECONDS = st.one_of(st.integers(0, 10**9), HOSTILE)
SECONDS = st.floats(0, 2)
SHARES = st.floats(0, 5)


def make_part(rank: int = 0, arrived: float = 1.0, **told: int) -> RankRound:
    """Return one rank's part, of which the node tells nothing but `told`, in nanoseconds."""
    names = {"compute_nanoseconds": 0, "tile_wait_nanoseconds": 0, "sent_bytes": 1000, "received_bytes": 1000}
    return RankRound(rank=rank, arrived=arrived, **{**names, **told})


def make_record(*parts: RankRound, sent: float = 0.1, finished: float = 1.2) -> RoundRecord:
    """Return a round that began at 0."""
    in_order = tuple(sorted(parts, key=lambda part: part.arrived))
    return RoundRecord(
        sweep_id=1, sequence_ids=(1,), kind="ffn", layer=0, layer_count=1, row_count=1, started=0.0, sent=sent,
        finished=finished, parts=in_order, slowest=in_order[0],
    )  # fmt: skip


@st.composite
def records(draw: st.DrawFn, rank_count: int = 3) -> RoundRecord:
    """Draw a round of some ranks whose nodes tell whatever they like."""
    ranks = draw(st.lists(st.integers(0, rank_count - 1), min_size=1, max_size=rank_count, unique=True))
    parts = [
        make_part(
            rank, draw(SECONDS), compute_nanoseconds=draw(NANOSECONDS), tile_wait_nanoseconds=draw(NANOSECONDS),
            handling_nanoseconds=draw(NANOSECONDS), queue_nanoseconds=draw(NANOSECONDS),
            core_wait_nanoseconds=draw(NANOSECONDS),
        )
        for rank in ranks
    ]  # fmt: skip
    last = max(part.arrived for part in parts)
    return make_record(*parts, sent=draw(SECONDS), finished=last + draw(SECONDS))


@given(record=records(), link_seconds=SECONDS)
def test_parts_of_a_round_add_up_to_it_and_none_is_negative(record: RoundRecord, link_seconds: float) -> None:
    """Whatever a node says of itself, and whatever an echo has measured."""
    split = split_round(record, link_seconds)
    assert min(split) >= 0
    assert sum(split) == pytest.approx(record.finished - record.started, abs=TINY)
    assert split.link <= link_seconds


@given(
    rounds=st.lists(records(), max_size=6), more=SECONDS, starved=st.lists(SHARES, min_size=3, max_size=3), own=SHARES
)
def test_parts_of_a_sweep_add_up_to_it(
    rounds: list[RoundRecord], more: float, starved: list[float], own: float
) -> None:
    """What was not in a round is the coordinator's; causes are of the known ones, and nodes of those that took part."""
    path = SweepPath(rank_count=3)
    for record in rounds:
        path.add(record, 0.01)
    whole = sum(record.finished - record.started for record in rounds) + more
    parts = path.finish(whole, starved, own)
    assert sum(parts.values()) == pytest.approx(whole, abs=1e-6)
    assert all(value > 0 for value in parts.values())
    assert {cause for _, cause in parts} <= set(CAUSES)
    assert {rank for rank, cause in parts if cause == COORDINATOR} <= {OWN}


def finished(record: RoundRecord, link_seconds: float, starved: float, own: float) -> Parts:
    """Return the parts of a sweep of one round of rank 0."""
    path = SweepPath(rank_count=1)
    path.add(record, link_seconds)
    return path.finish(record.finished - record.started, [starved], own)


def test_a_starved_node_is_not_blamed_on_its_link() -> None:
    """The link gets what an echo says, and not the rest."""
    record = make_record(make_part(handling_nanoseconds=10**8))
    parts = finished(record, link_seconds=0.005, starved=0.8, own=0.0)
    assert parts[0, LINK] == pytest.approx(0.005)
    assert parts[0, CORE_WAIT] == pytest.approx(0.9 - 0.1 - 0.005)


def test_a_slow_link_is_not_blamed_on_anybody() -> None:
    """As much as an echo says is the link's, however busy both sides are."""
    record = make_record(make_part(handling_nanoseconds=10**8))
    parts = finished(record, link_seconds=5.0, starved=1.0, own=1.0)
    assert parts[0, LINK] == pytest.approx(0.8)
    assert (0, CORE_WAIT) not in parts


@given(starved=SHARES, own=SHARES)
def test_what_nobody_explains_goes_to_the_starved_side(starved: float, own: float) -> None:
    """In proportion; to the coordinator where neither lacks a core."""
    record = make_record(make_part(handling_nanoseconds=10**8), sent=0.0, finished=1.0)
    parts = finished(record, 0.0, starved, own)
    node = starved / (starved + own) if starved + own >= 0.01 else 0.0
    assert parts.get((0, CORE_WAIT), 0.0) == pytest.approx(0.9 * node, abs=TINY)
    assert parts.get((OWN, COORDINATOR), 0.0) == pytest.approx(0.9 * (1 - node), abs=TINY)


def test_of_an_earlier_build_the_rest_is_unknown() -> None:
    """It tells of kernels and weights alone; what else it did is neither its link's nor the coordinator's."""
    record = make_record(make_part(compute_nanoseconds=3 * 10**8, tile_wait_nanoseconds=10**8))
    parts = finished(record, 0.005, starved=0.0, own=0.5)
    assert parts[0, UNKNOWN] == pytest.approx(0.9 - 0.4 - 0.005)


def test_a_node_that_says_more_than_was_waited_is_cut_down_in_proportion() -> None:
    """It began while messages to others were still sent."""
    record = make_record(make_part(handling_nanoseconds=1_800_000_000, tile_wait_nanoseconds=900_000_000))
    split = split_round(record, 1.0)
    assert (split.disk, split.processor) == (pytest.approx(0.45), pytest.approx(0.45))
    assert (split.link, split.beyond) == (0.0, 0.0)


@given(rounds=st.lists(records(), min_size=1, max_size=6))
def test_nothing_is_worth_more_than_the_sweep_took(rounds: list[RoundRecord]) -> None:
    """What would be gained without a thing is at most what was waited for its node beyond the next to last."""
    path = SweepPath(rank_count=3)
    for record in rounds:
        path.add(record, 0.002)
    seconds = sum(record.finished - record.started for record in rounds)
    parts = path.finish(seconds, [0.5] * 3, 0.1)
    facts = facts_of(rounds, [WAY] * 3, parts, at=0.0, seconds=seconds, row_count=1, token_count=1)
    assert all(0 <= gain <= seconds + TINY for gain in facts.gains.values())
    assert 0 <= facts.halved_gain <= seconds + TINY
    assert all(min(node) >= 0 for node in facts.nodes)


def test_what_the_last_node_waits_for_is_worth_no_more_than_until_the_next_to_last() -> None:
    """Half a second of its disk, of which the other node would have taken all but a tenth."""
    last = make_part(0, 1.0, handling_nanoseconds=900_000_000, tile_wait_nanoseconds=500_000_000)
    record = make_record(last, make_part(1, 0.9, handling_nanoseconds=1))
    parts = {(0, "disk"): 0.5}
    facts = facts_of([record], [WAY] * 2, parts, at=0.0, seconds=1.2, row_count=1, token_count=1)
    assert facts.gains[0, "disk"] == pytest.approx(0.1)
    assert facts.nodes[0].disk == pytest.approx(0.5)


def test_half_the_bytes_save_half_of_their_time() -> None:
    """A thousand bytes each way at a megabyte a second take two milliseconds, on every way alike."""
    parts = [make_part(rank, 1.0, handling_nanoseconds=10**8) for rank in range(2)]
    facts = facts_of([make_record(*parts)], [WAY] * 2, {}, at=0.0, seconds=1.2, row_count=1, token_count=1)
    assert facts.halved_gain == pytest.approx(0.001)


def test_a_share_of_starving_follows_a_count_that_only_grows() -> None:
    """Threads that waited at once count each; a node that was started again begins anew."""
    share = StarvedShare()
    share.heard(0, 10.0)
    share.heard(1_000_000_000, 12.0)
    assert share.share == pytest.approx(0.5)
    share.heard(19_000_000_000, 14.0)
    assert share.share == pytest.approx(9.0)
    share.heard(100, 14.5)
    share.heard(100, 17.0)
    assert share.share == 0.0


def test_a_wait_for_weights_is_one_for_a_core_while_readers_lack_it() -> None:
    """As far as threads of the node lacked a core outside of kernels."""
    record = make_record(
        make_part(handling_nanoseconds=900_000_000, tile_wait_nanoseconds=800_000_000), sent=0.1, finished=1.0
    )
    parts = finished(record, 0.0, starved=0.75, own=0.0)
    assert parts[0, DISK] == pytest.approx(0.2)
    assert parts[0, CORE_WAIT] == pytest.approx(0.6)
    path_facts = facts_of([record], [WAY], parts, at=0.0, seconds=1.0, row_count=1, token_count=1)
    assert path_facts.gains[0, CORE_WAIT] == pytest.approx(0.6)


@given(sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True), more=st.integers(0, 10**7))
def test_more_bytes_never_take_less_time(sizes: list[int], more: int) -> None:
    """Between measured sizes, below and beyond them."""
    way = Way(points=tuple((float(size), 0.001 * (1 + place)) for place, size in enumerate(sorted(sizes))))
    assert way.seconds(more) <= way.seconds(more + 100)
    assert all(way.seconds(size) == pytest.approx(seconds) for size, seconds in way.points)


def test_of_what_nobody_explains_a_core_gains_the_nodes_part_only() -> None:
    """The rest was the coordinator's, and no core of the node gives that back."""
    record = make_record(make_part(handling_nanoseconds=10**8), sent=0.0, finished=1.0)
    parts = finished(record, 0.0, starved=1.0, own=1.0)
    facts = facts_of([record], [Way(points=((0.0, 0.0),))], parts, at=0.0, seconds=1.0, row_count=1, token_count=1)
    assert facts.gains[0, CORE_WAIT] == pytest.approx(0.45)
