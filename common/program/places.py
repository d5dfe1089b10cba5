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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

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


class Seats:
    """The connections that are there. Not safe for several threads.

    Who comes costs the same however many wait: a crowd comes a thousand times a second, and the process has other work.
    """

    def __init__(self, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        """Have all places free."""
        self.places, self.clock = places, clock
        self.taken: set[Caller] = set()
        self._pace = Pace(places.at_once, places.a_second, clock)
        self._count = self._waiting_count = 0
        self._waiting: dict[str, dict[Caller, None]] = {}
        """Who is not let in yet, by host, the oldest first."""
        self._networks: Counter[str] = Counter()
        """How many of them are of each network."""

    def is_too_fast(self, host: str) -> bool:
        """Count one more connection from a host, and tell whether that is more than its network may open by now."""
        if not self.places.at_once or is_here(host):
            return False
        return not self._pace.allows(network_of(host))

    def sit(self, caller: Caller) -> Caller | None:
        """Give a connection a place, and return who has lost his for it; himself: there was none for him."""
        loser, most = None, self.places.waiting or self.places.connections
        if len(self.taken) >= self.places.connections or self._waiting_count >= most:
            loser = self._loser() or caller
            self.leave([loser])
        if loser is not caller:
            self._count += 1
            caller.place = self._count
            self.taken.add(caller)
            self._waiting.setdefault(caller.host, {})[caller] = None
            self._networks[caller.network] += 1
            self._waiting_count += 1
        return loser

    def let_in(self, caller: Caller, most: int) -> list[Caller]:
        """Let somebody in for good, and return his oldest connections beyond `most`, which lose their places.

        Args: most: of those under his name; 0: as many as he likes.
        """
        self._waits_no_more(caller)
        caller.is_let_in, caller.deadline = True, float("inf")
        own = sorted((other for other in self.taken if other.who == caller.who), key=lambda other: other.place)
        lost = own[: max(0, len(own) - most)] if caller.who and most else []
        self.leave(lost)
        return lost

    def leave(self, callers: Iterable[Caller]) -> None:
        """Take their places from some; who has none loses nothing."""
        for caller in callers:
            self.taken.discard(caller)
            self._waits_no_more(caller)

    def late(self) -> list[Caller]:
        """Return whose time is over."""
        now = self.clock()
        return [caller for caller in self.taken if caller.deadline <= now]

    def next_end(self) -> float | None:
        """Return in how many seconds the next one's time is over; None: nobody's ends."""
        end = min((caller.deadline for caller in self.taken), default=float("inf"))
        return None if end == float("inf") else max(0.0, end - self.clock())

    def _waits_no_more(self, caller: Caller) -> None:
        of_host = self._waiting.get(caller.host, {})
        if caller in of_host:
            del of_host[caller]
            self._waiting_count -= 1
            self._networks[caller.network] -= 1
            if not of_host:
                del self._waiting[caller.host]
            if not self._networks[caller.network]:
                del self._networks[caller.network]

    def _loser(self) -> Caller | None:
        """Return the oldest connection that is not let in, of the host that has most of these; else who rests longest.

        Networks come before hosts: of IPv6 one device has as many addresses as it likes.
        """
        if not self._waiting_count:
            return min(
                (caller for caller in self.taken if caller.is_resting),
                key=lambda caller: caller.deadline, default=None,
            )  # fmt: skip
        oldest = ((next(iter(callers)), len(callers)) for callers in self._waiting.values())
        return min(oldest, key=lambda one: (-self._networks[one[0].network], -one[1], one[0].place))[0]


@lru_cache(maxsize=1024)
def is_here(host: str) -> bool:
    """Tell whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=1024)
def network_of(host: str) -> str:
    """Return the network of a number of IPv6, and of any other host itself."""
    try:
        number = int(ipaddress.IPv6Address(host.partition("%")[0]))
    except ValueError:
        return host
    return str(ipaddress.IPv6Address(number >> NETWORK_BITS << NETWORK_BITS))
