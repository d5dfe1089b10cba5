"""Rounds from another device without gRPC: frames over TLS on TCP, over TCP alone where gRPC is without TLS too.

Covers: one session per connection, or echoes alone; places for connections of which no session has come yet, which
those of echoes keep to. Does not cover: the session (framed_session.py), echoes (framed_echoes.py), who is let in
(common/trust/rounds_door.py), which port (NodeConfig.rounds_place).
Threads: one that accepts; those of each session.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from common.errors import ShardmeshError
from common.program.callers import Callers
from common.program.door_series import DoorSeries
from common.program.places import Caller, Places
from common.wire.framing import FrameReader, Stream, send_frame
from common.wire.rpc import MAX_MESSAGE_BYTES
from common.wire.tcp_limits import prepare_tcp
from shardnode.listeners.framed_echoes import answer_echoes, is_of_echoes
from shardnode.listeners.framed_session import FramedSession, failure_of
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.session_series import SessionSeries
from shardnode.slices.serving import Serving

if TYPE_CHECKING:  # certificates, 10 MB, are for members of a mesh
    from common.trust.rounds_door import RoundsDoor

ROUNDS = "rounds"
PLACES = Places(connections=16, threads=32, seconds=10.0, close_seconds=0.0)


class FramesServer:
    """Listens on one port. Raises on construction: OSError."""

    def __init__(
        self, host: str, port: int, serving: Serving, live: LiveSessions, series: SessionSeries,
        door: RoundsDoor | None, doors: DoorSeries | None = None,
    ) -> None:  # fmt: skip
        """Args: door: None: whoever reaches the port may use it; doors: the process's; None: nobody looks."""
        self._serving, self._live, self._series, self._door = serving, live, series, door
        self._callers = Callers(
            host, port, PLACES, self._answer, name="rounds", refused="rounds refused", failed="a session failed",
            count=(lambda reason: None) if doors is None else doors.connections(ROUNDS),
        )  # fmt: skip
        if doors is not None:
            doors.follow(ROUNDS, self._callers.count)
        self.port = self._callers.port

    def look_again(self) -> None:
        """End the sessions of who is no member any more. From any thread."""
        if self._door is not None:
            door = self._door
            self._callers.look_again(lambda caller: not door.refusal(caller))

    def close(self) -> None:
        """Listen no more and end all sessions."""
        self._callers.close()

    def _answer(self, caller: Caller) -> None:
        plain = caller.connection
        prepare_tcp(plain)
        connection: Stream = plain if self._door is None else self._door.let_in(caller)
        reader = FrameReader(connection, MAX_MESSAGE_BYTES)
        if is_of_echoes(reader):
            answer_echoes(connection, reader)
            return
        try:
            self._live.check_open()
            node = self._serving.current()
        except ShardmeshError as error:
            send_frame(connection, failure_of(error))
            return

        def opened() -> None:
            """Take the limit away that who says nothing has."""
            plain.settimeout(None)
            self._callers.stay(caller)

        def cancel() -> None:
            with suppress(OSError):
                plain.shutdown(socket.SHUT_RDWR)

        framed = FramedSession(node, connection, self._series, self._live, reader=reader, opened=opened)
        with self._live.during(framed.session, cancel):
            framed.serve()
