"""Which sessions go on here, whatever they came over, and how do they end when the node is told to?

Covers: nothing new once the node drains, idle ones ended at once, those that an answer needs waited for. Does not
cover: one session (session.py), signals (shardnode/run.py).
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.errors import NodeError, NodeLost
from common.program.logs import entry
from shardnode.sessions.session import Session

LAST_WORDS_SECONDS = 1.0
"""How long a session may take to send its next message once its answer is to end in words."""

log = logging.getLogger(__name__)


class LiveSessions:
    """All sessions of one node. Safe from any thread."""

    def __init__(self) -> None:
        self._sessions: dict[Session, Callable[[], object]] = {}
        self._ended = threading.Condition()
        self.must_look = ctypes.c_int(0)
        """Not 0: the node was told to end, and every message is looked at. C reads it too."""
        self.cut: NodeLost | None = None
        """What answers every message from now on; None: sessions go on."""

    @contextmanager
    def during(self, session: Session, cancel: Callable[[], object]) -> Iterator[None]:
        """Have a session among these for as long. Args: cancel: ends it, from any thread."""
        with self._ended:
            self._sessions[session] = cancel
            if self.must_look.value:  # since just now
                session.refuse_new(ending())
        try:
            yield
        finally:
            with self._ended:
                del self._sessions[session]
                self._ended.notify_all()

    def check_open(self) -> None:
        """Raises: NodeError: the node was told to end, and begins nothing."""
        if self.must_look.value:
            raise ending()

    @property
    def is_usual(self) -> bool:
        """Whether the node was not told to end: no session has to be looked at."""
        return not self.must_look.value

    def is_done(self, session: Session) -> bool:
        """Tell whether a session is to end now, since the node does and no answer needs it."""
        return bool(self.must_look.value) and session.is_idle

    def begin_nothing(self) -> int:
        """Let nothing new begin, end the sessions that no answer needs, and return how many others there are.

        A coordinator keeps a session open between answers.
        """
        with self._ended:
            self.must_look.value = 1
            sessions = dict(self._sessions)
        for session in sessions:
            session.refuse_new(ending())
        idle = [session for session in sessions if session.is_idle]
        for session in idle:
            sessions[session]()
        return len(sessions) - len(idle)

    def drain(self, limit_seconds: float) -> None:
        """Begin nothing more, and return once no answer needs a session; those that do after the limit end in words."""
        if count := self.begin_nothing():
            log.info("%s", entry("ending", sessions=count, most_seconds=limit_seconds))
        if not self._wait_until_none(limit_seconds):
            self.cut = NodeLost(f"it was told to end, and the answer was not complete within {limit_seconds:g} s")
            log.warning("%s", entry("ending what is not complete", sessions=len(self._sessions), seconds=limit_seconds))
            self._wait_until_none(LAST_WORDS_SECONDS)

    def _wait_until_none(self, limit_seconds: float) -> bool:
        with self._ended:
            return self._ended.wait_for(lambda: not self._sessions, limit_seconds)


def ending() -> NodeError:
    """Return what a node that ends answers."""
    return NodeError("it was told to end and begins nothing new; ask again when it is back")
