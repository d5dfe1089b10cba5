"""Does who costs much and comes to nothing wait, and nobody else for him?

Covers: common/program/turns.py. Does not cover: places (test_seats.py), connections (test_callers.py).
"""

from __future__ import annotations

import socket

import pytest

from common.program.places import Caller, Places
from common.program.turns import Turns

SOMEBODY = socket.socket()
SET_ASIDE = 0.125
AT_ONCE, A_SECOND = 10 * SET_ASIDE, 2 * SET_ASIDE


class Clock:
    """Goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return one at 0."""
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Turns:
    """Return those of a port that looks at ten at once, and at two a second."""
    return Turns(Places(
        connections=99, threads=9, seconds=5.0, in_vain_seconds=AT_ONCE, in_vain_a_second=A_SECOND,
        set_aside_seconds=SET_ASIDE,
    ), clock)  # fmt: skip


def come(turns: Turns, count: int, name: str = "10.0.0.1") -> list[Caller]:
    """Have some wait, and return them."""
    callers = [Caller(host=name, deadline=5.0, connection=SOMEBODY) for _ in range(count)]
    for caller in callers:
        turns.wait(caller, name)
    return callers


def test_so_many_have_their_turn_at_once_and_the_others_in_the_order_of_coming(turns: Turns, clock: Clock) -> None:
    """Two a second, in time; once all have had it, nobody is waited for."""
    crowd = come(turns, 14)
    assert turns.next() == crowd[:10]
    assert turns.next() == []
    assert turns.next_seconds() == pytest.approx(0.0, abs=0.01)
    looked_at = 10
    while (wait := turns.next_seconds()) is not None:
        clock.now += wait
        found = turns.next()
        assert found == crowd[looked_at : looked_at + len(found)]
        looked_at += len(found)
    assert looked_at == len(crowd)
    assert 1.0 <= clock.now <= 2.1


def test_a_crowd_keeps_nobody_of_another_network_waiting(turns: Turns) -> None:
    """Each has an allowance of its own."""
    come(turns, 99)
    turns.next()
    (other,) = come(turns, 1, "10.0.0.2")
    assert turns.next() == [other]


def test_who_is_let_in_has_taken_nothing(turns: Turns) -> None:
    """However many of a mesh connect at once: what was set aside for each is there for the next one."""
    for _ in range(99):
        come(turns, 5)
        found = turns.next()
        assert len(found) == 5
        for caller in found:
            turns.count(caller, 0.0)
            turns.count(caller, 9.0)


def test_who_took_longer_in_vain_keeps_his_network_waiting_for_longer(turns: Turns, clock: Clock) -> None:
    """What it took counts; but no more than it may take at once, so that a pause has an end."""
    (slow,) = come(turns, 1)
    assert turns.next() == [slow]
    turns.count(slow, 99.0)
    (behind,) = come(turns, 1)
    assert turns.next() == []
    wait = turns.next_seconds()
    assert wait == pytest.approx(AT_ONCE / A_SECOND, abs=0.01)
    clock.now = wait
    assert turns.next() == [behind]


def test_who_has_gone_while_he_waited_takes_no_turn(turns: Turns) -> None:
    """Of a crowd that breaks off, nobody is left to be looked at."""
    crowd = come(turns, 12)
    turns.next()
    assert turns.forget(crowd[10])
    assert not turns.forget(crowd[10])
    assert not turns.forget(crowd[0])
    assert turns.forget(crowd[11])
    assert turns.next_seconds() is None


def test_a_port_without_an_allowance_looks_at_once_at_who_comes() -> None:
    """As pages of metrics do, which bound threads."""
    turns = Turns(Places(connections=99, threads=9, seconds=5.0))
    crowd = come(turns, 99)
    assert turns.next() == crowd
    assert turns.next_seconds() is None
    turns.count(crowd[0], 9.0)
    assert len(come(turns, 1)) == len(turns.next())
