"""Is a way what its quickest echoes took, soon after it has changed and whatever one look has met?

Covers: coordinator/ranks/link_watch.py, what it makes of echoes. Does not cover: sending them
(tests/observed/test_why.py).
"""

from __future__ import annotations

import pytest

from coordinator.ranks.link_watch import MeasuredWay, is_alike

QUICK, SLOW = {64: 0.001, 4000: 0.002}, {64: 0.001, 4000: 0.1}


def test_one_look_that_met_something_else_changes_nothing() -> None:
    """Of three looks the one in the middle counts."""
    measured = MeasuredWay()
    for look in (QUICK, SLOW, QUICK):
        way = measured.looked(look)
    assert way.seconds(8000) == pytest.approx(0.002)


def test_a_link_that_has_become_slow_is_seen_with_the_second_look() -> None:
    """Six seconds later, at the latest."""
    measured = MeasuredWay()
    for look in (QUICK, QUICK, SLOW, SLOW):
        way = measured.looked(look)
    assert way.seconds(8000) == pytest.approx(0.1)
    assert way.round_trip_seconds == 0.001


def test_few_bytes_that_met_a_round_are_not_the_round_trip() -> None:
    """On a way that is full most of them do; the quickest of a minute counts, or what was measured before rounds."""
    for measured in (MeasuredWay(0.001), MeasuredWay()):
        way = measured.looked({64: 0.001, 4000: 0.05})
        for _ in range(10):
            way = measured.looked({64: 0.04, 4000: 0.05})
        assert way.round_trip_seconds == 0.001
        assert way.seconds(4064) == pytest.approx(0.0255, rel=0.01)


def test_echoes_that_waited_for_a_core_do_not_make_a_link_slow() -> None:
    """Of a node whose threads lack one most have: the quickest look of three counts."""
    measured = MeasuredWay()
    for look in (SLOW, QUICK, SLOW):
        way = measured.looked(look, is_starved=True)
    assert way.seconds(8000) == pytest.approx(0.002)


def test_more_bytes_are_never_quicker_whatever_noise_says() -> None:
    """A way's line never falls."""
    way = MeasuredWay().looked({64: 0.002, 4000: 0.001, 9000: 0.003})
    assert [seconds for _, seconds in way.points] == [0.002, 0.002, 0.003]


def test_bytes_of_another_size_are_between_those_that_were_measured() -> None:
    """There and back count together; beyond the largest the last line goes on."""
    way = MeasuredWay().looked({500: 0.001, 1000: 0.002, 2000: 0.006})
    assert way.seconds(1500) == pytest.approx(0.0015)
    assert way.seconds(3000) == pytest.approx(0.004)
    assert way.seconds(6000) == pytest.approx(0.010)
    assert way.seconds(0) == pytest.approx(0.001)


def test_a_way_is_steady_while_looks_find_what_they_found() -> None:
    """Then they come less often; one that differs is looked at again soon, until it is what is usual."""
    measured = MeasuredWay()
    steady = []
    for look in (QUICK, QUICK, QUICK, SLOW, SLOW, QUICK, QUICK, QUICK):
        measured.looked(look)
        steady.append(measured.is_steady)
    assert steady == [False, False, True, False, True, False, True, True]


def test_a_moment_more_or_less_is_as_steady() -> None:
    """A busy processor adds milliseconds; a slow way's own wobble is in its measure."""
    measured = MeasuredWay()
    for seconds in (0.001, 0.001, 0.0058):
        measured.looked({64: 0.001, 4000: seconds})
    assert measured.is_steady
    for seconds in (0.1, 0.1, 0.1, 0.14):
        measured.looked({64: 0.001, 4000: seconds})
    assert measured.is_steady
    measured.looked({64: 0.001, 4000: 0.3})
    assert not measured.is_steady
    measured.looked({64: 0.001, 4000: 0.9}, is_starved=True)
    assert measured.is_steady, "it waited for a core, which no look at the link tells"


def test_tokens_that_take_half_as_long_again_have_the_ways_looked_at() -> None:
    """Slower or quicker; what was never measured is unlike anything."""
    assert [is_alike(seconds, 0.1) for seconds in (0.06, 0.07, 0.1, 0.14, 0.16)] == [False, True, True, True, False]
    assert not is_alike(0.1, 0.0)
    assert is_alike(0.0, 0.0)
