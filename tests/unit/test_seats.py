"""Who has a place at a port, whose goes, and who comes too fast, whatever callers do?

Covers: common/program/places.py beside what it is to be in plain words, for any sequence of events.
Does not cover: connections (test_callers.py), real ports (tests/attacks).
"""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from common.program.places import Caller, Places, network_of
from common.program.seats import Seats

SOMEBODY = socket.socket()
SOMEBODY.close()
HOSTS = ("10.0.0.1", "10.0.0.2", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::1")
EVENTS = st.lists(st.tuples(st.sampled_from(("sit", "let_in", "admit", "rest", "ask", "leave", "wait")),
                            st.integers(0, 40)), max_size=80)  # fmt: skip


class Model:
    """Seats, and beside them what walks over all callers say."""

    def __init__(self) -> None:
        self.now = 0.0
        self.places = Places(connections=8, waiting=5, threads=8, seconds=10.0)
        self.seats = Seats(self.places, lambda: self.now)
        self.there: list[Caller] = []

    def expected_loser(self) -> Caller | None:
        waiting = [one for one in self.there if not one.is_let_in]
        if not waiting:
            return min((one for one in self.there if one.is_resting), key=lambda one: one.deadline, default=None)

        def order(one: Caller) -> tuple[int, int, int]:
            network = sum(other.network == one.network for other in waiting)
            return -network, -sum(other.host == one.host for other in waiting), one.place

        return min(waiting, key=order)

    def sit(self, number: int) -> None:
        caller = Caller(host=HOSTS[number % len(HOSTS)], deadline=self.now + 10.0, connection=SOMEBODY)
        caller.who = f"node {number % 3}"
        is_full = len(self.there) >= 8 or sum(not one.is_let_in for one in self.there) >= 5
        expected = self.expected_loser() or caller if is_full else None
        assert self.seats.sit(caller) is expected
        self.there = [one for one in [*self.there, caller] if one is not expected]

    def let_in(self, caller: Caller) -> None:
        own = [one for one in self.there if one.is_let_in and one.who == caller.who and one.deadline == float("inf")]
        own = sorted({*own, caller}, key=lambda one: one.place)
        lost = self.seats.let_in(caller, 2)
        assert lost == own[: max(0, len(own) - 2)]
        self.there = [one for one in self.there if one not in lost]

    def do(self, event: str, number: int) -> None:
        if event == "sit" or not self.there:
            self.sit(number)
            return
        caller = self.there[number % len(self.there)]
        if event == "wait":
            self.now += number / 4
            late = {one for one in self.there if one.deadline <= self.now}
            assert set(self.seats.late()) == late
            for one in late:
                self.seats.leave(one)
            self.there = [one for one in self.there if one not in late]
        elif event == "let_in" and not caller.is_let_in:
            self.let_in(caller)
        elif event in ("rest", "ask") and caller.is_let_in and caller.deadline != float("inf"):
            self.seats.rest(caller, number / 2) if event == "rest" else self.seats.ask(caller)
        elif event == "admit" and not caller.is_let_in:
            self.seats.admit(caller)
        elif event == "leave":
            self.seats.leave(caller)
            self.seats.leave(caller)
            self.there.remove(caller)

    def check(self) -> None:
        assert self.seats.taken == set(self.there)
        ends = [one.deadline for one in self.there if one.deadline != float("inf")]
        found = self.seats.next_end()
        if ends:
            assert found is not None
            assert found <= max(0.0, min(ends) - self.now) + 1e-9


@given(EVENTS)
def test_the_same_go_and_stay_as_if_all_were_looked_at_each_time(events: list[tuple[str, int]]) -> None:
    """The oldest of who has most of those not let in; a peer's own oldest; who is late; each once."""
    model = Model()
    for event, number in events:
        model.do(event, number)
        model.check()


def test_where_nobody_is_let_in_each_connection_counts_but_those_of_this_machine() -> None:
    """Whoever joins has no certificate to show."""
    seats = Seats(Places(connections=99, threads=9, seconds=5.0, at_once=3, a_second=1.0), lambda: 0.0)
    assert [seats.is_too_fast("10.0.0.1") for _ in range(4)] == [False, False, False, True]
    assert not any(seats.is_too_fast("127.0.0.1") for _ in range(9))


def test_addresses_of_one_network_of_ipv6_are_one() -> None:
    """A device has as many of them as it likes."""
    assert network_of("2001:db8:1::1") == network_of("2001:db8:1::2") != network_of("2001:db8:2::1")


def test_a_host_where_members_are_is_not_counted_with_others_of_its_network() -> None:
    """Which a device with many addresses can do no more than be of."""
    seats = Seats(Places(connections=99, threads=9, seconds=5.0), lambda: 0.0)
    member = Caller(host="2001:db8:1::1", deadline=5.0, connection=SOMEBODY)
    seats.sit(member)
    seats.let_in(member, 0)
    assert seats.counted_as("2001:db8:1::1") == "2001:db8:1::1"
    assert seats.counted_as("2001:db8:1::2") == seats.counted_as("2001:db8:1::3") == network_of("2001:db8:1::3")


def test_those_that_have_sent_nothing_are_not_in_the_way_of_those_that_have() -> None:
    """Who speaks waits for his turn, which a crowd of the silent from his own host must not take from him."""
    seats = Seats(Places(connections=99, waiting=4, threads=9, seconds=5.0), lambda: 0.0)
    speakers = [Caller(host="127.0.0.1", deadline=5.0, connection=SOMEBODY) for _ in range(3)]
    for speaker in speakers[:2]:
        assert seats.sit(speaker) is None
        assert seats.speak(speaker) is None
        assert seats.speak(speaker) is None
    lost = [seats.sit(Caller(host="127.0.0.1", deadline=5.0, connection=SOMEBODY)) for _ in range(9)]
    assert sum(loser is not None for loser in lost) == 5
    assert not set(lost) & set(speakers)
    seats.sit(speakers[2])
    assert seats.speak(speakers[2]) is speakers[0]
    assert speakers[0] not in seats.taken
