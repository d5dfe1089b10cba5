"""Does who looks on see the rounds of the last seconds, and does nobody pay while nobody looks?

Does not cover: records themselves (test_ranks.py), what is made of it (test_overview.py).
"""

from __future__ import annotations

import pytest

from coordinator.ranks.round_record import RankRound, RoundRecord
from coordinator.ranks.round_watch import KEPT_SECONDS, WATCHED_SECONDS, NodeRounds, RoundWatch

NAMES = ("kitchen", "attic")


def record(finished: float, *seconds: float) -> RoundRecord:
    """Return a round. Args: seconds: by rank, until each answer was there."""
    started = finished - max(seconds)
    parts = sorted(
        (RankRound(rank, started + one, 0, 0, 0, 0) for rank, one in enumerate(seconds)), key=lambda part: part.arrived
    )
    return RoundRecord(1, (1,), "ffn", 0, 1, 1, started, started, finished, tuple(parts), parts[-1])


def test_rounds_are_counted_by_the_names_of_nodes() -> None:
    """How many, how long, and how often everybody waited for this one."""
    watch = RoundWatch()
    observe = watch.observer("tiny", NAMES)
    watch.look(100.0)
    for seconds in ((0.25, 0.5), (0.25, 0.5), (0.75, 0.5)):
        observe([record(101.0, *seconds)])
    found = watch.look(102.0)
    assert watch.model == "tiny"
    assert found.nodes == {
        "kitchen": NodeRounds(round_count=3, seconds=1.25, last_count=1),
        "attic": NodeRounds(round_count=3, seconds=1.5, last_count=2),
    }
    assert (found.round_count, found.seconds) == (3, 2.0)


def test_nothing_is_counted_while_nobody_looks() -> None:
    """Neither before the first look nor long after the last one; who looks again begins anew."""
    watch = RoundWatch()
    observe = watch.observer("tiny", NAMES)
    observe([record(99.0, 0.5, 0.5)])
    assert watch.look(100.0).nodes == {}
    observe([record(100.5, 0.5, 0.5)])
    assert watch.look(101.0).round_count == 1
    late = 101.0 + WATCHED_SECONDS
    observe([record(late + 1, 0.5, 0.5)])
    found = watch.look(late + 2)
    assert (found.round_count, found.seconds) == (0, 0.0)


@pytest.mark.parametrize(("age", "is_told"), [(1.0, True), (KEPT_SECONDS - 1.0, True), (KEPT_SECONDS + 2.0, False)])
def test_what_is_older_than_some_seconds_is_not_told(age: float, is_told: bool) -> None:
    """Somebody has looked all the while."""
    watch = RoundWatch()
    observe = watch.observer("tiny", NAMES)
    watch.look(100.0)
    observe([record(101.0, 0.1, 0.2)])
    assert bool(watch.look(101.0 + age).round_count) is is_told


def test_a_node_without_a_part_has_no_round() -> None:
    """Of a block that it holds nothing of; and other ranks after others have their own names."""
    watch = RoundWatch()
    first, second = watch.observer("tiny", NAMES), watch.observer("other", ("attic",))
    watch.look(100.0)
    first([record(100.5, 0.5)])
    second([record(100.6, 0.25)])
    found = watch.look(101.0)
    assert {name: rounds.seconds for name, rounds in found.nodes.items()} == {"kitchen": 0.5, "attic": 0.25}
    assert watch.model == "other"
