"""Is a node's new place worth a write to the disk? Only once it has stayed, and not more often than once a minute.

A member that says another address with every heartbeat would wear the coordinator's card out, and keep its disk busy.
Covers: when a place has settled. Does not cover: whether it may be there (claims.py, node_address.py), the file
(book.py).
Not safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Callable

SETTLED_SECONDS = 3.0
"""So long a node says the same before it is written down: three heartbeats."""
APART_SECONDS = 60.0
"""Between two writes of one node's moves."""

Place = tuple[str, str]
"""Where a node listens, and where its metrics are."""


class Moves:
    """What nodes have last said, and what of it is written down."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[str, tuple[Place, float]] = {}
        self._written: dict[str, tuple[Place, float]] = {}

    def is_worth_a_write(self, name: str, before: Place, place: Place) -> bool:
        """Tell whether to write now. Args: before: what it said last, or the file says of it."""
        now = self._clock()
        written, written_at = self._written.setdefault(name, (before, now - APART_SECONDS))
        said, since = self._said.get(name, (before, now))
        if said != place:
            since = now
        self._said[name] = place, since
        if place == written:
            return False
        is_first = not written[0]  # who has just joined is found again after a restart, too
        has_settled = now - since >= SETTLED_SECONDS and now - written_at >= APART_SECONDS
        return is_first or has_settled

    def written(self, name: str) -> None:
        """Take it that what a node said last has been written, or tried to be."""
        self._written[name] = self._said[name][0], self._clock()

    def forget(self, name: str) -> None:
        """Forget a node that is gone."""
        self._said.pop(name, None)
        self._written.pop(name, None)
