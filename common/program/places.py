"""Whose connection has a place at a port, and whose goes for it? Without sockets and threads.

Covers: how many are there, how long each may take to be let in, how many of one peer and how fast from one address;
who loses his place where none is left. Does not cover: connections themselves (callers.py).

Where all places are taken, whoever has the most connections loses the oldest of them that is not yet let in: thousands
of them from one host keep no other host away, and of IPv6 neither do those from one network. Where all are let in, the
one goes that has rested longest. A peer that comes too often loses its own oldest connection, and nobody else's: those
that a broken link has left are never in its way.
"""

from __future__ import annotations

import functools
import heapq
import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.program.pace import MOST_NAMES, Pace

NETWORK_BITS = 64
"""Of an address of IPv6 those that a device cannot choose; RFC 4291, 2.5.1."""
FOR_GOOD = float("inf")


@dataclass(eq=False)
class Caller:
    """One connection."""

    host: str
    deadline: float
    """Until when it may be there (time.monotonic), let in or not."""
    connection: socket.socket
    is_let_in: bool = False
    is_resting: bool = False
    """Whether it is let in and asks nothing now."""
    who: str = ""
    """What he has shown to be called, if he has; his connections are counted under it."""
    serial: str = ""
    """Of the certificate that he has shown, if he has."""
    certified_at: float = 0.0
    """When that was made, seconds since 1970 by the clock of who made it."""
    place: int = 0
    """Which one it was to come, counted from the first."""

    def __post_init__(self) -> None:
        self.network = network_of(self.host)


@dataclass(frozen=True, kw_only=True)
class Places:
    """How many may be there, and for how long."""

    connections: int
    waiting: int = 0
    """How many of those may be there that are not let in yet; 0: all."""
    threads: int
    """Those of connections that have just lost their place among them."""
    seconds: float
    """From being accepted to the end, or to being let in for good (`Callers.stay`)."""
    close_seconds: float = 2.0
    """How long who is let in may go on once the port closes."""
    at_once: int = 0
    """How many connections one network may open in a moment, this machine's own apart; 0: as many as it likes."""
    a_second: float = 0.0
    """How many more of those it may open with each second."""
    in_vain_seconds: float = 0.0
    """Processor time that connections of one network may take at once and not be let in, or have others of their peer
    sent away; 0: any."""
    in_vain_a_second: float = 0.0
    """How much more of it with each second."""


class Seats:
    """The connections that are there. A question takes as long however many one host has. Not for several threads."""

    def __init__(self, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self._places, self._clock = places, clock
        self._pace = Pace(places.at_once, places.a_second, clock)
        self._vain = Pace(places.in_vain_seconds, places.in_vain_a_second, clock)
        self.taken: set[Caller] = set()
        self._count = 0
        self._waiting_count = 0
        self._waiting: dict[str, dict[str, dict[Caller, None]]] = {}
        """Who is not let in yet, by network and host; each host's oldest first."""
        self._by_name: dict[str, dict[Caller, None]] = {}
        """Who is let in, by what they are called; the oldest first to have been let in."""
        self._known_hosts: dict[str, None] = {}
        """From which somebody was let in; the latest last."""
        self._end_count = 0
        self._ends: list[tuple[float, int, Caller]] = []
        """A heap of whose time ends when; who has left, or has another deadline by now, is passed over."""

    def is_too_fast(self, host: str) -> bool:
        """Count one more connection from a host, and tell whether that is more than its network may open by now.

        Who shares an address with such a one is sent away like him, for as long as he goes on.
        """
        name, places = self._counted_as(host), self._places
        if places.in_vain_seconds and not self._vain.has_left(name):
            return True
        return bool(places.at_once) and not is_here(host) and not self._pace.allows(name)

    def came_in_vain(self, caller: Caller, seconds: float) -> None:
        """Count processor time of a connection that has not been let in, or for which another of its peer went."""
        if self._places.in_vain_seconds:
            self._vain.spend(self._counted_as(caller.host), seconds)

    def sit(self, caller: Caller) -> Caller | None:
        """Give a connection a place, and return who has lost his for it; himself: there was none for him."""
        loser, most = None, self._places.waiting or self._places.connections
        if len(self.taken) >= self._places.connections or self._waiting_count >= most:
            loser = self._loser()
            if loser is None:
                return caller
            self.leave(loser)
        self._count += 1
        caller.place = self._count
        self.taken.add(caller)
        self._waiting.setdefault(caller.network, {}).setdefault(caller.host, {})[caller] = None
        self._waiting_count += 1
        self._until(caller, caller.deadline)
        return loser

    def let_in(self, caller: Caller, most: int) -> list[Caller]:
        """Let somebody in for good, and return his oldest connections beyond `most`, which lose their places.

        Args: most: of those under his name; 0: as many as he likes.
        """
        self.admit(caller)
        caller.deadline = FOR_GOOD
        self._known_hosts.pop(caller.host, None)
        self._known_hosts[caller.host] = None
        if len(self._known_hosts) > MOST_NAMES:
            del self._known_hosts[next(iter(self._known_hosts))]
        if not caller.who:
            return []
        own = self._by_name.setdefault(caller.who, {})
        own[caller] = None
        lost = sorted(own, key=lambda other: other.place)[: max(0, len(own) - most)] if most else []
        for other in lost:
            self.leave(other)
        return lost

    def admit(self, caller: Caller) -> None:
        """Let somebody in for as long as he may be there anyway."""
        self._wait_no_more(caller)
        caller.is_let_in = True

    def rest(self, caller: Caller, seconds: float) -> None:
        """Note that somebody asks nothing now, for so long at most."""
        caller.is_resting = True
        self._until(caller, self._clock() + seconds)

    def ask(self, caller: Caller) -> None:
        """Note that he asks again, which may take as long as the first time."""
        caller.is_resting = False
        self._until(caller, self._clock() + self._places.seconds)

    def leave(self, caller: Caller) -> None:
        """Give somebody's place back, if he has one."""
        if caller not in self.taken:
            return
        self.taken.remove(caller)
        self._wait_no_more(caller)
        own = self._by_name.get(caller.who, {})
        own.pop(caller, None)
        if not own:
            self._by_name.pop(caller.who, None)

    def late(self) -> list[Caller]:
        """Return whose time is over; each of them once."""
        now, late = self._clock(), []
        while self._ends and (self._is_past(self._ends[0]) or self._ends[0][0] <= now):
            end = heapq.heappop(self._ends)
            if not self._is_past(end):
                late.append(end[2])
        return late

    def next_end(self) -> float | None:
        """Return in how many seconds the next one's time is over, or sooner; None: nobody's ends."""
        return max(0.0, self._ends[0][0] - self._clock()) if self._ends else None

    def _counted_as(self, host: str) -> str:
        """Return under what connections of a host are counted: others of its network are not in a known one's way."""
        return host if host in self._known_hosts else network_of(host)

    def _until(self, caller: Caller, deadline: float) -> None:
        caller.deadline = deadline
        self._end_count += 1
        heapq.heappush(self._ends, (deadline, self._end_count, caller))

    def _is_past(self, end: tuple[float, int, Caller]) -> bool:
        """Tell whether an end is not that of somebody who is there."""
        return end[2] not in self.taken or end[2].deadline != end[0]

    def _wait_no_more(self, caller: Caller) -> None:
        hosts = self._waiting.get(caller.network, {})
        own = hosts.get(caller.host, {})
        if caller not in own:
            return
        del own[caller]
        self._waiting_count -= 1
        if not own:
            del hosts[caller.host]
        if not hosts:
            del self._waiting[caller.network]

    def _loser(self) -> Caller | None:
        """Return the oldest connection that is not let in, of the host that has most of these; else who rests longest.

        Networks come before hosts: of IPv6 one device has as many addresses as it likes.
        """
        if not self._waiting:
            return min(
                (caller for caller in self.taken if caller.is_resting),
                key=lambda caller: caller.deadline, default=None,
            )  # fmt: skip
        sizes = {network: sum(map(len, hosts.values())) for network, hosts in self._waiting.items()}
        most = max(sizes.values())
        crowds = [own for network, hosts in self._waiting.items() if sizes[network] == most for own in hosts.values()]
        largest = max(map(len, crowds))
        return min((next(iter(own)) for own in crowds if len(own) == largest), key=lambda caller: caller.place)


@functools.lru_cache(MOST_NAMES)
def is_here(host: str) -> bool:
    """Tell whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


@functools.lru_cache(MOST_NAMES)
def network_of(host: str) -> str:
    """Return the network of a number of IPv6, and of any other host itself."""
    try:
        number = int(ipaddress.IPv6Address(host.partition("%")[0]))
    except ValueError:
        return host
    return str(ipaddress.IPv6Address(number >> NETWORK_BITS << NETWORK_BITS))
