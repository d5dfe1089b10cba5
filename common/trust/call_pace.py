"""How fast may a peer of a gate open calls? Who opens them faster is not read from for a while.

    pace = CallPace(at_once=32, a_second=4.0)
    delay = pace.of("kitchen")      # for one of its connections; None: it may open them as it likes
    delay(received)                 # seconds; 0: it may go on

Covers: counting calls in what a peer sends, peers by their names. Does not cover: reading (relay.py), what a call may
do (common/wire/call_limits.py). CallPace is safe from several threads. Source: RFC 9113 (frames of HTTP/2).

A call that is refused costs the server a worker and the interpreter's lock as one that is answered does. Whoever is not
read from fills TCP's window and waits, which costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from common.program.pace import Pace
from common.trust.refusal import HEAD_BYTES, HEADERS, PREFACE_BYTES


class CallPace:
    """Of all peers of a gate."""

    def __init__(self, at_once: float, a_second: float, free: str = "") -> None:
        """Args: at_once: calls that a peer may open in a moment; a_second: how many more with each second; free: the
        peer that may open them as it likes.
        """
        self._pace, self._lock, self._free = Pace(at_once, a_second), threading.Lock(), free

    def of(self, name: str) -> Callable[[Sequence[bytes]], float] | None:
        """Return what tells, of what a peer sends over one connection, for how many seconds it has opened too many."""
        if name == self._free:
            return None
        opened = Opened()
        return lambda received: self._delay(name, opened.count(received))

    def _delay(self, name: str, count: int) -> float:
        if not count:
            return 0.0
        with self._lock:
            return self._pace.delay(name, count)


class Opened:
    """Counts the calls of one connection."""

    def __init__(self) -> None:
        self._to_skip, self._head = PREFACE_BYTES, b""

    def count(self, received: Sequence[bytes]) -> int:
        """Return how many calls are opened by what comes next."""
        opened = 0
        for part in received:
            at = 0
            while at < len(part):
                if self._to_skip:
                    skipped = min(self._to_skip, len(part) - at)
                    self._to_skip -= skipped
                    at += skipped
                    continue
                more = part[at : at + HEAD_BYTES - len(self._head)]
                self._head += more
                at += len(more)
                if len(self._head) == HEAD_BYTES:
                    opened += self._head[3] == HEADERS
                    self._to_skip, self._head = int.from_bytes(self._head[:3], "big"), b""
        return opened
