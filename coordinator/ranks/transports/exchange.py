"""One message to several nodes and their answers, in one call of C: no thread of Python wakes between any two of them.

    group = Group(clients)
    if group.takes(message):
        group.send(message)                      # comes back once all have answered, or something is not simple
    answers = [one.collect() for one in clients]

Covers: short messages over TCP, with TLS or without, and over Unix sockets.
Does not cover: what is left undone then, which each session goes on with as if it had been alone (framed.py,
framed_tcp.py): a node that is silent, a link without room, a connection that ends.

Why: of a round of four nodes over Python's sockets, four fifths of the coordinator's processor time was Python's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

from common.compute import matmul
from common.native.peers import PLAIN_FRAME, Lane, Peer, Round, Tls
from common.wire.framing import framed

LIMIT_MILLISECONDS = 250
"""After that each session is looked at by itself (arrivals.WATCH_SECONDS)."""
MOST_BYTES = 1 << 14
"""Of a message: one record of TLS, and more would find no room at once."""
ROOM_BYTES = 1 << 15


class Exchanged(Protocol):
    """One session, as far as this file goes."""

    framing: int
    """What its bytes begin with, of exchange.h."""

    native: Tls | None
    """What C encrypts with; None: `sealed` does, or there is no TLS."""

    is_on_this_host: bool
    """Whether the node computes on cores of this machine, and says itself when it was done."""

    def fileno(self) -> int:
        """Return the socket's descriptor."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be sent, and nothing that has come to be taken."""

    def sealed(self, framed: bytes) -> bytes:
        """Return what has to go over the socket."""

    def exchanged(self, peer: Peer, sealed: bytes, received: memoryview) -> None:
        """Take what has become of an exchange. Never raises."""


class Group:
    """Sessions that are asked together, of one run. Not safe for several threads."""

    def __init__(self, sessions: Sequence[Exchanged]) -> None:
        """Args: sessions: open, all of one kind, in the order in which they are sent to."""
        self._sessions = tuple(sessions)
        self._in_order = sessions[0].is_on_this_host
        self._rooms = [ctypes.create_string_buffer(ROOM_BYTES) for _ in sessions]
        self._views = [memoryview(room).cast("B") for room in self._rooms]
        self._peers = (Peer * len(self._sessions))()
        self._sent = ctypes.c_int64()
        for peer, session, room in zip(self._peers, self._sessions, self._rooms, strict=True):
            peer.fd, peer.framing = session.fileno(), session.framing
            peer.into, peer.room = ctypes.addressof(room), ROOM_BYTES
            if session.native is not None:
                peer.tls = ctypes.pointer(session.native)
        self.is_quick = all(session.framing == PLAIN_FRAME for session in self._sessions)
        """Whether C may run whole rounds: it sees all messages as they are."""
        self._frame = ctypes.create_string_buffer(ROOM_BYTES)
        self._round = Round(ctypes.addressof(self._frame), ROOM_BYTES, LIMIT_MILLISECONDS, self._in_order)
        self._each = list(zip(self._sessions, self._peers, self._views, strict=True))

    def takes(self, message: bytes) -> bool:
        """Tell whether `send` does this one: it is short, and nothing else is under way."""
        return len(message) <= MOST_BYTES and self.is_quiet

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way with any of them."""
        return all(session.is_quiet for session in self._sessions)

    def send(self, message: bytes) -> float:
        """Send a message that it takes to all; return when that was done (time.perf_counter). Never raises."""
        whole = framed(message)
        all_sealed = []
        for session, peer, _ in self._each:
            sealed = session.sealed(whole)
            peer.out, peer.out_count = sealed, len(sealed)
            all_sealed.append(sealed)
        matmul.functions().shardmesh_exchange(
            self._peers, len(self._each), LIMIT_MILLISECONDS, self._in_order, self._sent
        )
        for (session, peer, view), sealed in zip(self._each, all_sealed, strict=True):
            session.exchanged(peer, sealed, view[: peer.received_count])
        return self._sent.value / 1e9

    @property
    def lane(self) -> Lane:
        """Return what C runs packed rounds with (common/native/sweep.h), only where `is_quick`; valid while this is."""
        return Lane(ctypes.pointer(self._peers[0]), len(self._each), ctypes.pointer(self._round))

    def give_back(self) -> None:
        """Let each session take what has become of the last round, which C has left: to be collected. Never raises."""
        whole = ctypes.string_at(self._frame, self._peers[0].out_count)
        for session, peer, view in self._each:
            session.exchanged(peer, whole, view[: peer.received_count])


def group_of(sessions: Sequence[Exchanged | None]) -> Group | None:
    """Return what asks these together; None where one cannot be, or where they are of two kinds."""
    able = [session for session in sessions if session is not None]
    is_one_kind = len(able) == len(sessions) and len({session.is_on_this_host for session in able}) == 1
    return Group(able) if is_one_kind and matmul.kernels.functions is not None else None
