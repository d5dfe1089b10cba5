"""Whose connection is looked at next, of those that have sent something? Without sockets and threads.

Covers: an allowance of processor time for each network, for connections that come to nothing; who waits for it, in the
order of coming. Does not cover: whose place goes meanwhile (seats.py), looking (callers.py).

What a connection will take is not known before: so much is set aside when its turn comes, and counted for what it was
once that is known. Whoever waits costs nothing and, unlike who is sent away, does not come again at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from common.program.pace import Pace
from common.program.places import Caller, Places


class Turns:
    """At one port. Not for several threads."""

    def __init__(self, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_counted, self._set_aside = bool(places.in_vain_seconds), places.set_aside_seconds
        self._allowed = Pace(places.in_vain_seconds, places.in_vain_a_second, clock)
        self._waiting: dict[str, dict[Caller, None]] = {}
        """By what they are counted under, which does not change meanwhile; the first to come first."""
        self._begun: set[Caller] = set()
        """For whom something is set aside."""

    def wait(self, caller: Caller, name: str) -> None:
        """Have a connection wait for its turn. Args: name: under which it is counted."""
        caller.counted_as = name
        self._waiting.setdefault(name, {})[caller] = None

    def next(self) -> list[Caller]:
        """Return whose turn it is now; each of them once."""
        found = []
        for name in list(self._waiting):
            while (queue := self._waiting.get(name)) and (not self._is_counted or self._allowed.has_left(name)):
                caller = next(iter(queue))
                self.forget(caller)
                found.append(caller)
                if self._is_counted:
                    self._allowed.spend(name, self._set_aside)
                    self._begun.add(caller)
        return found

    def next_seconds(self) -> float | None:
        """Return in how many seconds the next one's turn is, or sooner; None: nobody waits."""
        return min(map(self._allowed.seconds_until_left, self._waiting), default=None) if self._is_counted else None

    def is_waiting(self, caller: Caller) -> bool:
        """Tell whether a connection waits for its turn."""
        return caller in self._waiting.get(caller.counted_as, ())

    def forget(self, caller: Caller) -> bool:
        """Have a connection wait no more, and tell whether it did."""
        if not self.is_waiting(caller):
            return False
        del self._waiting[caller.counted_as][caller]
        if not self._waiting[caller.counted_as]:
            del self._waiting[caller.counted_as]
        return True

    def count(self, caller: Caller, seconds: float) -> None:
        """Count what a connection has taken in vain, in place of what was set aside for it; once. Who is let in: 0."""
        if caller in self._begun:
            self._begun.remove(caller)
            self._allowed.spend(caller.counted_as, seconds - self._set_aside)
