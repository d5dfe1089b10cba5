"""Whose connection has a place at a port, and whose goes for it? Without sockets and threads.

Covers: how many are there, how long each may take to be let in, how many of one peer and how fast from one address;
who loses his place where none is left. Does not cover: connections themselves (callers.py), turns (turns.py).

Where all places are taken, whoever has the most connections loses the oldest of them that is not yet let in: thousands
of them from one host keep no other host away, and of IPv6 neither do those from one network. Those that have sent
nothing go before those that have, which are bounded for themselves. Where all are let in, the one goes that has rested
longest. A peer that comes too often loses its own oldest connection, and nobody else's: those that a broken link has
left are never in its way.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

from common.program.pace import MOST_NAMES, Pace
from common.program.places import Caller, Places, is_here, network_of

FOR_GOOD = float("inf")


class Crowd:
    """Connections that wait, by network and host; each host's oldest first."""

    def __init__(self) -> None:
        self.count = 0
        self._hosts: dict[str, dict[str, dict[Caller, None]]] = {}

    def add(self, caller: Caller) -> None:
        """Take one more."""
        self._hosts.setdefault(caller.network, {}).setdefault(caller.host, {})[caller] = None
        self.count += 1

    def remove(self, caller: Caller) -> bool:
        """Forget one, and tell whether it was there."""
        hosts = self._hosts.get(caller.network, {})
        own = hosts.get(caller.host, {})
        if caller not in own:
            return False
        del own[caller]
        self.count -= 1
        if not own:
            del hosts[caller.host]
        if not hosts:
            del self._hosts[caller.network]
        return True

    def oldest_of_most(self) -> Caller | None:
        """Return the oldest of the host that has most of them, networks before hosts; None: there is nobody.

        Of IPv6 one device has as many addresses as it likes.
        """
        sizes = {network: sum(map(len, hosts.values())) for network, hosts in self._hosts.items()}
        most = max(sizes.values(), default=0)
        crowds = [own for network, hosts in self._hosts.items() if sizes[network] == most for own in hosts.values()]
        largest = max(map(len, crowds), default=0)
        return min(
            (next(iter(own)) for own in crowds if len(own) == largest), key=lambda caller: caller.place, default=None
        )  # fmt: skip


class Seats:
    """The connections that are there. A question takes as long however many one host has. Not for several threads."""

    def __init__(self, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self._places, self._clock = places, clock
        self._pace = Pace(places.at_once, places.a_second, clock)
        self.taken: set[Caller] = set()
        self._count = 0
        self._silent, self._spoken = Crowd(), Crowd()
        """Who is not let in yet: has sent nothing, or something."""
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
        return bool(self._places.at_once) and not is_here(host) and not self._pace.allows(self.counted_as(host))

    def sit(self, caller: Caller) -> Caller | None:
        """Give a connection a place, and return who has lost his for it; himself: there was none for him."""
        loser, most = None, self._places.waiting or self._places.connections
        if len(self.taken) >= self._places.connections or self._silent.count >= most:
            loser = self._loser()
            if loser is None:
                return caller
            self.leave(loser)
        self._count += 1
        caller.place = self._count
        self.taken.add(caller)
        self._silent.add(caller)
        self._until(caller, caller.deadline)
        return loser

    def speak(self, caller: Caller) -> Caller | None:
        """Note that somebody has sent something, and return who has lost his place for it; he himself, may be."""
        if not self._silent.remove(caller):
            return None
        self._spoken.add(caller)
        if self._spoken.count <= (self._places.waiting // 2 or self._places.connections):
            return None
        loser = self._spoken.oldest_of_most()
        assert loser is not None  # there is at least the one who speaks
        self.leave(loser)
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

    def counted_as(self, host: str) -> str:
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
        self._silent.remove(caller) or self._spoken.remove(caller)

    def _loser(self) -> Caller | None:
        """Return the oldest connection that is not let in, of the host that has most of these; else who rests longest.

        The silent come first, since they have shown the least.
        """
        resting = (caller for caller in self.taken if caller.is_resting)
        return (
            self._silent.oldest_of_most() or self._spoken.oldest_of_most()
            or min(resting, key=lambda caller: caller.deadline, default=None)
        )  # fmt: skip
