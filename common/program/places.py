"""Whose connection has a place at a port, and whose goes for it? Without sockets and threads.

Covers: how many are there, how long each may take to be let in, how many of one peer and how fast from one address;
who loses his place where none is left. Does not cover: connections themselves (callers.py).

Where all places are taken, whoever has the most connections loses the oldest of them that is not yet let in: thousands
of them from one host keep no other host away, and of IPv6 neither do those from one network. Where all are let in, the
one goes that has rested longest. A peer that comes too often loses its own oldest connection, and nobody else's: those
that a broken link has left are never in its way.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from common.program.pace import Pace

NETWORK_BITS = 64
"""Of an address of IPv6 those that a device cannot choose; RFC 4291, 2.5.1."""


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
    """How many connections one network may open in a moment, this machine's own apart, where who wants its processor
    has it anyway; 0: as many as it likes."""
    a_second: float = 0.0
    """How many more of those it may open with each second."""


@dataclass
class Seats:
    """The connections that are there. Not safe for several threads."""

    places: Places
    clock: Callable[[], float] = time.monotonic
    taken: set[Caller] = field(default_factory=set)
    _count: int = 0

    def __post_init__(self) -> None:
        self._pace = Pace(self.places.at_once, self.places.a_second, self.clock)

    def is_too_fast(self, host: str) -> bool:
        """Count one more connection from a host, and tell whether that is more than its network may open by now."""
        if not self.places.at_once or is_here(host):
            return False
        return not self._pace.allows(network_of(host))

    def sit(self, caller: Caller) -> Caller | None:
        """Give a connection a place, and return who has lost his for it; himself: there was none for him."""
        loser, most = None, self.places.waiting or self.places.connections
        waiting = [other for other in self.taken if not other.is_let_in]
        if len(self.taken) >= self.places.connections or len(waiting) >= most:
            loser = self._loser(waiting) or caller
            self.taken.discard(loser)
        if loser is not caller:
            self._count += 1
            caller.place = self._count
            self.taken.add(caller)
        return loser

    def let_in(self, caller: Caller, most: int) -> list[Caller]:
        """Let somebody in for good, and return his oldest connections beyond `most`, which lose their places.

        Args: most: of those under his name; 0: as many as he likes.
        """
        caller.is_let_in, caller.deadline = True, float("inf")
        own = sorted((other for other in self.taken if other.who == caller.who), key=lambda other: other.place)
        lost = own[: max(0, len(own) - most)] if caller.who and most else []
        self.taken.difference_update(lost)
        return lost

    def late(self) -> list[Caller]:
        """Return whose time is over."""
        now = self.clock()
        return [caller for caller in self.taken if caller.deadline <= now]

    def next_end(self) -> float | None:
        """Return in how many seconds the next one's time is over; None: nobody's ends."""
        ends = [caller.deadline for caller in self.taken if caller.deadline != float("inf")]
        return max(0.0, min(ends) - self.clock()) if ends else None

    def _loser(self, waiting: list[Caller]) -> Caller | None:
        """Return the oldest connection that is not let in, of the host that has most of these; else who rests longest.

        Networks come before hosts: of IPv6 one device has as many addresses as it likes.
        """
        if not waiting:
            return min(
                (caller for caller in self.taken if caller.is_resting),
                key=lambda caller: caller.deadline, default=None,
            )  # fmt: skip
        hosts = Counter(caller.host for caller in waiting)
        networks = Counter(caller.network for caller in waiting)
        return min(waiting, key=lambda caller: (-networks[caller.network], -hosts[caller.host], caller.place))


def is_here(host: str) -> bool:
    """Tell whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def network_of(host: str) -> str:
    """Return the network of a number of IPv6, and of any other host itself."""
    try:
        number = int(ipaddress.IPv6Address(host.partition("%")[0]))
    except ValueError:
        return host
    return str(ipaddress.IPv6Address(number >> NETWORK_BITS << NETWORK_BITS))
