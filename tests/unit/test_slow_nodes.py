"""Is a node named when it makes everybody wait much longer than before, and only then?

Covers: the pure judgement, looks of a second with given times; that it is shown as long as it holds.
Does not cover: real nodes (tests/e2e/test_faults_in_namespaces.py).
"""

from __future__ import annotations

import pytest

from coordinator.ranks.round_series import RoundSeries
from coordinator.ranks.slow_nodes import LOOK_SECONDS, LOOKS, SLOW_FOR_SECONDS, Slow, SlowNodes, SlowNodeWatch, sentence

KIND, OTHER = ("ffn", 1), ("ffn", 8)


def rounds(nodes: SlowNodes, waits: list[float], *, count: int = 0, kind: object = KIND) -> Slow | None:
    """Fill a second, or `count` rounds, with rounds in which each rank is waited for so long; then look."""
    for _ in range(count or max(1, round(LOOK_SECONDS / sum(waits)))):
        nodes.round_took(kind, list(enumerate(waits)))
    return nodes.look(None, None, 0.0)


def usual(waits: list[float]) -> SlowNodes:
    """Return what has seen twenty seconds of such rounds."""
    nodes = SlowNodes()
    assert not any(rounds(nodes, waits) for _ in range(20))
    return nodes


def test_a_node_that_becomes_ten_times_slower_is_named_in_three_seconds() -> None:
    """Rounds of five milliseconds take fifty, because of rank 2."""
    nodes = usual([0.004, 0.0005, 0.0005])
    found = [rounds(nodes, [0.004, 0.0005, 0.0455]) for _ in range(LOOKS)]
    assert LOOKS * LOOK_SECONDS == 3.0
    slow = next(one for one in found if one)
    assert slow.rank == 2
    assert not slow.is_one_round
    assert 2.0 <= slow.waited_seconds <= 3.0


def test_a_round_that_does_not_end_is_named_after_two_seconds_even_if_it_is_the_first() -> None:
    """Nothing is known of such rounds yet."""
    nodes = SlowNodes()
    assert nodes.look(1, KIND, 1.5) is None
    slow = nodes.look(1, KIND, 2.0)
    assert slow == Slow(rank=1, waited_seconds=2.0, usual_seconds=0.0, is_one_round=True)


def test_a_round_that_does_not_end_is_named_as_that_after_others_too() -> None:
    """Whoever reads it knows whether to wait; what rounds before it took does not make a slow node of it."""
    nodes = SlowNodes()
    nodes.round_took(KIND, [(0, 0.1)])
    slow = nodes.look(0, KIND, 1.95)
    assert slow is not None
    assert (slow.is_one_round, slow.waited_seconds) == (True, 1.95)


@pytest.mark.parametrize("seconds", [0.01, 0.4, 3.0])
def test_nodes_that_are_always_as_slow_are_not_named(seconds: float) -> None:
    """Somebody chose them so."""
    nodes = usual([seconds, 0.001])
    assert nodes.look(0, KIND, 0.9 * seconds) is None


def test_rounds_of_another_kind_have_their_own_usual_time() -> None:
    """A prompt's rounds take a hundred times as long as a token's."""
    nodes = usual([0.004, 0.001])
    assert not any(rounds(nodes, [0.4, 0.1], kind=OTHER) for _ in range(10))


def test_who_is_waited_for_may_change_while_rounds_take_as_long_as_ever() -> None:
    """Two nodes alike: now one is last, now the other."""
    nodes = usual([0.005, 0.0001])
    assert not any(rounds(nodes, [0.0001, 0.005]) for _ in range(10))


def test_what_stays_slow_becomes_usual() -> None:
    """Somebody is told, but not for ever."""
    nodes = usual([0.005, 0.0001])
    found = [rounds(nodes, [0.005, 0.05]) for _ in range(400)]
    assert any(found[:10])
    assert not any(found[-100:])


def test_silence_between_answers_is_no_slowness() -> None:
    """Nobody waits then."""
    nodes = usual([0.005])
    assert not any(nodes.look(None, None, 0.0) for _ in range(100))
    assert rounds(nodes, [0.005]) is None


def test_the_sentence_names_the_node_and_how_slow_it_is() -> None:
    """A person reads it."""
    slow = Slow(rank=0, waited_seconds=2.5, usual_seconds=0.25, is_one_round=False)
    assert "kitchen is slow: 2.5 of the last seconds" in sentence("kitchen", slow)
    assert "10 times" in sentence("kitchen", slow)
    one = Slow(rank=0, waited_seconds=2.5, usual_seconds=0.0, is_one_round=True)
    assert sentence("kitchen", one).startswith("waiting for kitchen")


def test_a_node_is_shown_as_slow_until_it_was_not_found_so_for_a_while() -> None:
    """Looks that find nothing in between change nothing; the end of the watch ends it."""
    series = RoundSeries()
    watch = SlowNodeWatch(["a", "b"], lambda text: None, series.slow_noted(["a", "b"]))
    slow = Slow(rank=1, waited_seconds=2.0, usual_seconds=0.1, is_one_round=False)

    def shown() -> list[float]:
        return [series.node_slow.of(name).value for name in ("a", "b")]

    assert shown() == [0, 0]
    watch.note(slow, 100.0)
    watch.note(None, 103.0)
    assert shown() == [0, 1]
    watch.note(slow, 104.0)
    watch.note(None, 104.0 + SLOW_FOR_SECONDS)
    assert shown() == [0, 1]
    watch.note(None, 104.5 + SLOW_FOR_SECONDS)
    assert shown() == [0, 0]
    watch.note(slow, 200.0)
    watch.close()
    assert shown() == [0, 0]
