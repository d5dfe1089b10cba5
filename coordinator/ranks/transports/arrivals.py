"""Which node's answer is here? All connections of one run, looked at together by the thread that waits.

    arrivals.wait_for(client)       # meanwhile answers of others are taken, and bytes that had no room are sent

Covers: connections to other devices, each answer with the instant at which it came; a message that a slow link does not
take at once goes on while others are sent and answers come. Does not cover: what is in them (framed.py), Unix sockets:
an answer there says itself when it was made, and to wake for each one would take cores from nodes of this host.
Not safe for several threads.
"""

from __future__ import annotations

import select
import time
from typing import Protocol

WATCH_SECONDS = 0.25
"""How often a session that is waited for is looked at; without a word for so long, others are asked whether they hear
its node."""


class Waiting(Protocol):
    """One session, as far as this file goes."""

    @property
    def has_answer(self) -> bool:
        """Whether something lies there to be collected: an answer, or how the session has ended."""

    def fileno(self) -> int:
        """Return the socket's descriptor."""

    def take(self, now: float) -> None:
        """Take what has come. Never raises. Args: now: when it was seen (time.perf_counter)."""

    def flush(self) -> bool:
        """Send what had no room, as far as there is room; tell whether all is sent. Never raises."""

    def look(self) -> None:
        """Notice that a peer is silent for too long. Never raises."""


class Arrivals:
    """The open sessions of one run."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sessions: dict[int, Waiting] = {}

    def add(self, session: Waiting) -> None:
        """Look at a session from now on."""
        descriptor = session.fileno()
        self._sessions[descriptor] = session
        self._poll.register(descriptor, select.POLLIN)

    def remove(self, session: Waiting) -> None:
        """Look at it no more. May be called twice."""
        for descriptor in [number for number, one in self._sessions.items() if one is session]:
            self._poll.unregister(descriptor)
            del self._sessions[descriptor]

    def needs_room(self, session: Waiting, *, needs: bool) -> None:
        """Say whether a session has bytes that wait for room."""
        if self._sessions.get(session.fileno()) is session:
            self._poll.modify(session.fileno(), select.POLLIN | (select.POLLOUT if needs else 0))

    def wait_for(self, session: Waiting) -> None:
        """Return once `session` has an answer, or has ended."""
        poll, sessions, looked = self._poll, self._sessions, time.perf_counter()
        while not session.has_answer:
            ready = poll.poll(WATCH_SECONDS * 1000)
            now = time.perf_counter()
            for descriptor, events in ready:
                one = sessions.get(descriptor)
                if one is None:
                    continue
                if events & select.POLLOUT and one.flush():
                    self.needs_room(one, needs=False)
                if events & ~select.POLLOUT:
                    one.take(now)
            if now - looked >= WATCH_SECONDS and not session.has_answer:  # also while others say that they work
                session.look()
                looked = now
