"""Whose place is taken where a port has none left, when callers have as many addresses as they like?

Covers: common/program/callers.py with callers of IPv6. Does not cover: real ports (test_page_server.py,
tests/contract/test_frames_port.py).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from common.program.callers import Callers
from common.program.listening import host_of
from common.program.places import Caller, Places
from common.trust.member_door import address_of
from common.wire.addresses import host_of_caller
from tests.support.waiting import wait_until

PLACES = 4


class Port:
    """A port whose callers wait to be let in until the test has ended."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._ends: list[socket.socket] = []
        places = Places(connections=PLACES, threads=64, seconds=60.0)
        self._callers = Callers("127.0.0.1", 0, places, self._answer, name="crowd", refused="", failed="")

    def call(self, host: str) -> socket.socket:
        """Come from a host; return the caller's end."""
        here, there = socket.socketpair()
        self._ends.append(here)
        self._callers._take(there, host)
        return here

    def close(self) -> None:
        self._over.set()
        self._callers.close()
        for end in self._ends:
            end.close()

    def _answer(self, caller: Caller) -> None:
        self._over.wait(60.0)


@pytest.fixture
def port() -> Iterator[Port]:
    """Return a port with places for a few."""
    made = Port()
    yield made
    made.close()


def is_there(end: socket.socket) -> bool:
    """Tell whether a caller still has its place."""
    end.setblocking(False)
    try:
        return end.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:  # cut with something unread
        return False


def test_a_device_with_an_address_for_each_call_keeps_no_other_network_away(port: Port) -> None:
    """Its addresses are of one network of 64 bits, whose oldest call loses its place."""
    first = port.call("2001:db8:1::1")
    crowd = [port.call(f"2001:db8:2::{number:x}") for number in range(1, 40)]
    assert is_there(first)
    assert [is_there(end) for end in crowd] == [False] * (len(crowd) - PLACES + 1) + [True] * (PLACES - 1)


def test_in_one_network_whoever_calls_most_often_loses_a_place(port: Port) -> None:
    """As on a home network, where all devices are of one."""
    first = port.call("fe80::7%eth0")
    crowd = [port.call("fe80::8%eth0") for _ in range(40)]
    assert is_there(first)
    assert sum(map(is_there, crowd)) == PLACES - 1


def test_who_comes_to_nothing_waits_for_his_turn_and_other_networks_do_not_wait_for_him() -> None:
    """Of eight four are looked at, until it is known that they cost little."""
    answered: list[str] = []
    over = threading.Event()

    def answer(caller: Caller) -> None:
        answered.append(caller.host)
        over.wait(60.0)

    places = Places(
        connections=64, threads=64, seconds=60.0, in_vain_seconds=0.01, in_vain_a_second=1e-6, set_aside_seconds=0.003
    )
    callers = Callers("127.0.0.1", 0, places, answer, name="turns", refused="", failed="")
    with closing(callers), ExitStack() as ends:

        def call(host: str) -> socket.socket:
            here, there = socket.socketpair()
            ends.enter_context(here)
            here.send(b"hello")
            callers._take(there, host)
            return here

        crowd = [call("10.0.0.1") for _ in range(8)]
        wait_until(lambda: len(answered) == 4, limit_seconds=5, what="turns")
        call("10.0.0.2")
        wait_until(lambda: "10.0.0.2" in answered, limit_seconds=5, what="the turn of another network")
        assert answered.count("10.0.0.1") == 4
        over.set()
        wait_until(lambda: not callers._thread_count, limit_seconds=5, what="what those have cost is known")
        call("10.0.0.3")
        wait_until(lambda: answered.count("10.0.0.1") == 8, limit_seconds=5, what="the turns of the rest")
        callers.close()
        assert not any(map(is_there, crowd))


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("10.0.0.7", 4711), "10.0.0.7"),
        (("::ffff:10.0.0.7", 4711, 0, 0), "10.0.0.7"),
        (("2001:db8::7", 4711, 0, 0), "[2001:db8::7]"),
        (("fe80::7", 4711, 0, socket.if_nameindex()[0][0]), f"[fe80::7%{socket.if_nameindex()[0][1]}]"),
    ],
    ids=["IPv4", "IPv4 at a port of both", "IPv6", "of one link alone"],
)
def test_who_asks_is_told_where_the_caller_is_reached(address: tuple[str, int], host: str) -> None:
    """With the link that an address is of: without, nobody could answer it."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
        assert host_of_caller(address_of(Caller(host=host_of(address), deadline=0.0, connection=connection))) == host
