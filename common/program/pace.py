"""How fast may somebody do a thing: some at once, and then so many a second?

Covers: names that are remembered, a bounded number of them. Does not cover: what is done. Not safe for several threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_NAMES = 4096
_A_LITTLE = 0.001
"""Seconds by which who has waited has something left, whatever is rounded."""


@dataclass
class _Allowance:
    left: float
    at: float


@dataclass
class Pace:
    """An allowance for each name, which fills itself up again."""

    at_once: float
    a_second: float
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, _Allowance] = field(default_factory=dict)

    def allows(self, name: str) -> bool:
        """Count one more of somebody's, if he may by now, and tell whether he may."""
        own = self._own(name)
        if own.left < 1.0:
            return False
        own.left -= 1.0
        return True

    def has_left(self, name: str) -> bool:
        """Tell whether somebody may by now, and count nothing."""
        return self._own(name).left > 0.0

    def spend(self, name: str, amount: float) -> None:
        """Count something of somebody's, whether he may or not: at most as much beyond as he may do at once; of less
        than nothing, he has it back.
        """
        own = self._own(name)
        own.left = min(self.at_once, max(-self.at_once, own.left - amount))

    def seconds_until_left(self, name: str) -> float:
        """Return for how many seconds somebody may do nothing, and count nothing."""
        left = self._own(name).left
        return 0.0 if left > 0.0 else -left / self.a_second + _A_LITTLE

    def delay(self, name: str, count: int) -> float:
        """Count some more of somebody's, whether he may or not, and return for how many seconds he may do no more."""
        own = self._own(name)
        own.left -= count
        return max(0.0, -own.left / self.a_second)

    def _own(self, name: str) -> _Allowance:
        now = self.clock()
        if name not in self._known and len(self._known) >= MOST_NAMES:
            del self._known[min(self._known, key=lambda known: self._known[known].at)]
        own = self._known.setdefault(name, _Allowance(self.at_once, now))
        own.left, own.at = min(self.at_once, own.left + (now - own.at) * self.a_second), now
        return own
