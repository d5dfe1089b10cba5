"""A node's answer and the wait for the next message, in one call of C, or as many of both as a sweep has.

    lane = lane_of(connection, reader)                # None: C cannot see this connection's messages
    frame = lane.answer_and_wait(head, numbers)       # what FrameReader.receive returns
    outcome = lane.answer_blocks(served, frame)       # and what follows it

Covers: short packed answers over TCP, with TLS or without, and over Unix sockets. Does not cover: the calls themselves
(common/native/rounds.c, common/native/serving.c), who may write meanwhile (framed_session.py holds its lock), what is
in messages (sessions).

Why: a message of which nothing is computed took a node 60 microseconds, of which bare sockets take 17.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import TYPE_CHECKING, cast

from common.compute import matmul
from common.native.address import address
from common.native.library import Outcome
from common.native.peers import PLAIN_FRAME, Peer
from common.native.served import ServedSession
from common.weights.stored_numbers import Floats
from common.wire.framing import FrameReader, Stream

if TYPE_CHECKING:  # TLS is for members of a mesh
    from common.trust.rounds_tls import RoundsConnection

ROOM_BYTES = 1 << 15
"""Of a frame; longer messages are received by the reader."""
HEAD_BYTES, MOST_LENGTHS = 4, 64
OUTCOMES = tuple(Outcome)
MOST_NUMBER_BYTES = 1 << 14
"""Of an answer's numbers: one record of TLS, and more would find no room at once."""


class AnswerLane:
    """One connection. Not safe for several threads."""

    def __init__(self, plain: socket.socket, secure: RoundsConnection | None, reader: FrameReader) -> None:
        """Args: plain: connected, and waiting as long as it is to; secure: TLS over it, if any; reader: of either."""
        self._plain, self._secure, self._reader = plain, secure, reader
        self._frame, self._into = (ctypes.c_char * ROOM_BYTES)(), (ctypes.c_char * ROOM_BYTES)()
        self._frame_view, self._view = (memoryview(place).cast("B") for place in (self._frame, self._into))
        self._place = ctypes.addressof(self._frame)
        self._messages: dict[int, memoryview] = {}
        self._last, self._last_bytes = self._view, -1
        """The message that came last, and its frame's length."""
        self._is_clear = False
        """Whether the last call has left nothing anywhere."""
        functions = matmul.functions()  # to look one up takes as long as half of the call
        self._call, self._serve = functions.shardmesh_answer, functions.shardmesh_serve
        self._peer = Peer(into=ctypes.addressof(self._into), room=ROOM_BYTES, fd=plain.fileno(), framing=PLAIN_FRAME)
        self._is_near = plain.family == socket.AF_UNIX
        if secure is not None and secure.native is not None:
            self._peer.tls = ctypes.pointer(secure.native)

    @property
    def sleeps_at_once(self) -> bool:
        """Whether the next wait does not look for its message first: it was in vain lately, or other programs have kept
        the core meanwhile."""
        return bool(self._peer.patience.passes > 0)

    def takes(self, numbers: Floats) -> bool:
        """Tell whether `answer_and_wait` takes an answer: it is short, and nothing that has come waits elsewhere."""
        return numbers.nbytes <= MOST_NUMBER_BYTES and (self._is_clear or not self._is_holding)

    @property
    def _is_holding(self) -> bool:
        return self._reader.is_holding or (self._secure is not None and self._secure.is_holding)

    def _message(self, frame_bytes: int) -> memoryview:
        """Return the message of a frame of such a length; the same object each time, so that sessions know it again."""
        found = self._messages.get(frame_bytes)
        if found is None:
            if len(self._messages) >= MOST_LENGTHS:
                self._messages.clear()
            found = self._messages[frame_bytes] = self._view[HEAD_BYTES:frame_bytes]
        self._last, self._last_bytes = found, frame_bytes
        return found

    def answer_and_wait(self, head: bytes, numbers: Floats, *, is_last: bool = False) -> bytes | memoryview | None:
        """Send a packed answer and return the next message, good until the next call; None: the peer has ended.

        Args: head: what `numbers`, float32 without gaps, follow; is_last: of its sweep, so the next message is no
        matter of microseconds.
        Raises: ProtocolError, TimeoutError, OSError: as FrameReader.receive and send_frame.
        """
        peer = self._peer
        peer.is_near = self._is_near and not is_last
        outcome = self._call(peer, self._place, ROOM_BYTES, head, len(head), address(numbers), numbers.size)
        if outcome == Outcome.DONE:
            self._is_clear = True
            return self.last
        self._is_clear = False
        return self.go_on()

    def answer_blocks(self, served: ServedSession, frame: bytes | memoryview) -> Outcome | None:
        """Answer a message and those after it, as long as each is the next block of a sweep.

        Args: frame: the message, which came last.
        Returns: DONE: `last` came after them and is not answered; NOT_SIMPLE: `go_on` does the rest of the last answer
        and receives; another: why a block has failed; None: nothing has happened, the message lies elsewhere.
        """
        if frame is not self._last or not self._is_clear:
            return None
        outcome: Outcome = OUTCOMES[self._serve(served, self._peer, self._place, ROOM_BYTES)]
        if outcome is Outcome.NOT_SIMPLE:
            self._is_clear = False
        return outcome

    @property
    def last(self) -> memoryview:
        """The message that came last, as `answer_and_wait` returns it."""
        count = self._peer.received_count
        return self._last if count == self._last_bytes else self._message(count)

    def go_on(self) -> bytes | None:
        """Do what C has left. Returns, Raises: as `answer_and_wait`."""
        peer = self._peer
        for number in (peer.send_error, peer.receive_error):
            if number:
                raise OSError(number, os.strerror(number))
        if peer.sent_count < peer.out_count:
            left = self._frame_view[peer.sent_count : peer.out_count] if self._secure is None else self._secure.unsent()
            try:
                self._plain.sendall(left)
            except BlockingIOError as error:  # what a limit on the socket itself reports
                raise TimeoutError("the peer takes no more bytes") from error
        if peer.received_count:
            message = self._reader.put(bytes(self._view[: peer.received_count]))
            if message is not None:
                return message
        return self._reader.receive()


def lane_of(connection: Stream, reader: FrameReader) -> AnswerLane | None:
    """Return what answers over a connection; None: Python's ssl seals its messages, or there are no kernels."""
    if matmul.kernels.functions is None:
        return None
    if isinstance(connection, socket.socket):
        return AnswerLane(connection, None, reader)
    secure = cast("RoundsConnection", connection)
    return AnswerLane(secure.plain, secure, reader) if secure.native is not None else None
