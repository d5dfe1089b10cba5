"""A session in frames, without gRPC: over a Unix socket with a node of this host, over TCP with another device.

Covers: deadlines by silence, failures in-band, packed answers. Does not cover: the other end
(shardnode/listeners/framed_session.py), connecting and TLS (framed_tcp.py), which answer is looked at when
(arrivals.py).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from common.errors import NodeFault, NodeLost, NodeTimeout, ProtocolError, ShardmeshError
from common.native.peers import PLAIN_FRAME, Peer, Tls
from common.wire.framing import FrameReader, Stream, give_room, limit_silence, send_frame, send_frame_with_files
from common.wire.packed_round import is_packed, unpack_done
from common.wire.rpc import MAX_MESSAGE_BYTES, Status, error_from
from coordinator.ranks.transports.carriers import DIRECT, Carrier
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS, SILENCE_SECONDS, Arrived
from protos.shardmesh.v1 import shard_pb2

SAME_SECONDS = 1e-3
"""More than it takes to read answers that are all there when somebody looks."""


class FramedSession:
    """What sessions over every kind of connection share: reading answers, and saying what is wrong."""

    takes_packed = True

    def __init__(self, connection: Stream, name: str, silence_seconds: float, round_limit_seconds: float) -> None:
        self.name = name
        self.round_limit_seconds = round_limit_seconds
        self._connection = connection
        self._silence_seconds = silence_seconds
        self._reader = FrameReader(connection, MAX_MESSAGE_BYTES)
        self._inbox: deque[Arrived | ShardmeshError] = deque()
        """What has come and nobody has collected: answers, and how the session has ended."""

    def interrupt(self) -> None:
        """See ShardClient."""
        with contextlib.suppress(OSError):  # it is closed, or was never connected
            self._connection.shutdown(socket.SHUT_RDWR)

    def receive(self, submitted_at: float, now: float | None = None) -> Arrived:
        """Return the next message. Args: now: when it was seen to be here; None: it says itself.

        Raises: NodeLost, NodeTimeout, NodeFault.
        """
        try:
            frame = self._reader.receive()
        except TimeoutError:
            raise self._silent() from None
        except OSError as error:
            raise self._lost(error) from error
        except ProtocolError as error:
            raise NodeLost(f"{self.name} broke off: {error}") from error
        if now is not None and time.perf_counter() - now > SAME_SECONDS:  # its end came later than its beginning
            now = time.perf_counter()
        if frame is None:
            raise NodeLost(f"{self.name} closed the connection; its process has ended")
        return self.arrived(frame, submitted_at, now)

    def arrived(self, frame: bytes, submitted_at: float, now: float | None) -> Arrived:
        """Return what a message says. Args: as of `receive`. Raises: NodeFault: it cannot be read."""
        if is_packed(frame):
            done = unpack_done(frame, self.name)
            return Arrived(done, now or _ready(done.ready_nanoseconds, submitted_at), len(frame), frame)
        try:
            response = shard_pb2.RoundsResponse.FromString(frame)
        except DecodeError as error:
            raise NodeFault(f"{self.name} sent a message that cannot be read") from error
        return Arrived(response, now or _ready(response.ready_nanoseconds, submitted_at), len(frame))

    def answered(self, arrived: Arrived) -> bool:
        """Tell whether a message is an answer: no sign of life. Raises: what the node says instead."""
        response = arrived.response
        if not isinstance(response, shard_pb2.RoundsResponse):
            return True
        if response.HasField("failure"):
            raise self._told(response.failure)
        return response.WhichOneof("body") is not None

    def keep(self, arrived: Arrived) -> None:
        """Have a message collected, if it is an answer. Raises: as `answered`."""
        if self.answered(arrived):
            self._inbox.append(arrived)

    def kept(self) -> Arrived:
        """Return the first answer that was kept. Raises: how the session has ended, to whoever asks again too."""
        found = self._inbox[0]
        if isinstance(found, ShardmeshError):
            raise found
        self._inbox.popleft()
        return found

    def too_long(self) -> NodeTimeout:
        """Return what a round that takes too long ends in."""
        return NodeTimeout(f"{self.name} has worked on one block for more than {self.round_limit_seconds:g} s")

    def last_words(self) -> ShardmeshError | None:
        """Return why the node has hung up, if it said so."""
        try:
            while True:
                response = self.receive(0.0, 1.0).response
                if isinstance(response, shard_pb2.RoundsResponse) and response.HasField("failure"):
                    return self._told(response.failure)
        except (NodeLost, NodeTimeout, NodeFault):
            return None

    def _silent(self) -> NodeTimeout:
        return NodeTimeout(
            f"{self.name} gave no sign of life for {self._silence_seconds:g} s; it is frozen or overloaded"
        )

    def _told(self, failure: shard_pb2.Failure) -> ShardmeshError:
        """Return what the node says of itself, as an error."""
        return error_from(Status(code=failure.status, reason=failure.reason, message=failure.message), self.name)

    def _lost(self, error: OSError) -> NodeLost:
        return NodeLost(f"{self.name} is gone ({error.strerror or error})")


class DirectShardClient(FramedSession):
    """A node of this host, over its Unix socket. See ShardClient."""

    passes_files = is_on_this_host = True
    carrier = Carrier(DIRECT)
    framing = PLAIN_FRAME
    native: Tls | None = None

    def __init__(
        self,
        path: str,
        name: str,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        round_limit_seconds: float = ROUND_LIMIT_SECONDS,
    ) -> None:
        """Connect. Raises: NodeLost: nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        super().__init__(self._socket, name, silence_seconds, round_limit_seconds)
        limit_silence(self._socket, silence_seconds)
        give_room(self._socket)
        self._submitted_at = 0.0
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise NodeLost(f"{name} does not answer on {path}: {error.strerror or error}") from error

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """See ShardClient."""
        self._submitted_at = time.perf_counter()
        try:
            if files:
                send_frame_with_files(self._socket, message, files)
            else:
                send_frame(self._socket, message)
        except TimeoutError:
            raise NodeTimeout(f"{self.name} takes no more messages") from None
        except OSError as error:
            # The node may have said why before it hung up.
            raise self.last_words() or self._lost(error) from error

    @property
    def together(self) -> DirectShardClient:
        """See ShardClient."""
        return self

    @property
    def is_quiet(self) -> bool:
        """See exchange.Exchanged."""
        return not (self._inbox or self._reader.is_holding)

    def fileno(self) -> int:
        """See exchange.Exchanged."""
        return self._socket.fileno()

    def sealed(self, framed: bytes) -> bytes:
        """See exchange.Exchanged."""
        self._submitted_at = time.perf_counter()
        return framed

    def exchanged(self, peer: Peer, sealed: bytes, received: memoryview) -> None:
        """See exchange.Exchanged."""
        try:
            if peer.send_error:
                raise self.last_words() or self._lost(OSError(peer.send_error, os.strerror(peer.send_error)))
            if peer.sent_count < len(sealed):
                self._socket.sendall(memoryview(sealed)[peer.sent_count :])
            message = self._reader.put(bytes(received)) if received else None
            if message is not None:
                self.keep(self.arrived(message, self._submitted_at, None))
        except OSError as error:
            self._inbox.append(self._lost(error))
        except ShardmeshError as error:
            self._inbox.append(error)

    def collect(self) -> Arrived:
        """See ShardClient."""
        if self._inbox:
            return self.kept()
        limit = time.monotonic() + self.round_limit_seconds
        while True:
            arrived = self.receive(self._submitted_at)
            if self.answered(arrived):
                return arrived
            if time.monotonic() > limit:
                raise self.too_long()

    def close(self) -> None:
        """See ShardClient."""
        self._socket.close()


def _ready(nanoseconds: int, submitted_at: float) -> float:
    """Return when an answer was ready. Both are on one host, with one clock; what is impossible is not believed."""
    now, ready = time.perf_counter(), nanoseconds / 1e9
    return ready if submitted_at <= ready <= now else now
