"""A session over a Unix socket in frames, without gRPC; for nodes on this host.

Covers: connecting, deadlines by silence, failures in-band. Does not cover: the other end
(shardnode/listeners/direct.py).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from common.errors import NodeFault, NodeLost, NodeTimeout, ProtocolError, ShardmeshError
from common.wire.framing import FrameReader, give_room, limit_silence, send_frame, send_frame_with_files
from common.wire.rpc import MAX_MESSAGE_BYTES, Status, error_from
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS, SILENCE_SECONDS, Arrived
from protos.shardmesh.v1 import shard_pb2


class DirectShardClient:
    """See ShardClient."""

    passes_files = True

    def __init__(
        self,
        path: str,
        name: str,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        round_limit_seconds: float = ROUND_LIMIT_SECONDS,
    ) -> None:
        """Connect. Raises: NodeLost: nobody listens there."""
        self.name = name
        self.round_limit_seconds = round_limit_seconds
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        limit_silence(self._connection, silence_seconds)
        give_room(self._connection)
        self._silence_seconds = silence_seconds
        self._submitted_at = 0.0
        self._reader = FrameReader(self._connection, MAX_MESSAGE_BYTES)
        try:
            self._connection.connect(path)
        except OSError as error:
            self._connection.close()
            raise NodeLost(f"{name} does not answer on {path}: {error.strerror or error}") from error

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """See ShardClient."""
        self._submitted_at = time.perf_counter()
        try:
            if files:
                send_frame_with_files(self._connection, message, files)
            else:
                send_frame(self._connection, message)
        except TimeoutError:
            raise NodeTimeout(f"{self.name} takes no more messages") from None
        except OSError as error:
            # The node may have said why before it hung up.
            raise self._last_words() or self._lost(error) from error

    def collect(self) -> Arrived:
        """See ShardClient."""
        limit = time.monotonic() + self.round_limit_seconds
        while True:
            arrived = self._receive()
            response = arrived.response
            if response.HasField("failure"):
                raise self._told(response.failure)
            if response.WhichOneof("body") is not None:
                return arrived
            if time.monotonic() > limit:
                raise NodeTimeout(f"{self.name} has worked on one block for more than {self.round_limit_seconds:g} s")

    def interrupt(self) -> None:
        """See ShardClient."""
        with contextlib.suppress(OSError):  # it is closed, or was never connected
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See ShardClient."""
        self._connection.close()

    def _receive(self) -> Arrived:
        try:
            frame = self._reader.receive()
        except TimeoutError:
            raise NodeTimeout(
                f"{self.name} gave no sign of life for {self._silence_seconds:g} s; it is frozen or overloaded"
            ) from None
        except OSError as error:
            raise self._lost(error) from error
        except ProtocolError as error:
            raise NodeLost(f"{self.name} broke off: {error}") from error
        now = time.perf_counter()
        if frame is None:
            raise NodeLost(f"{self.name} closed the connection; its process has ended")
        try:
            response = shard_pb2.RoundsResponse.FromString(frame)
        except DecodeError as error:
            raise NodeFault(f"{self.name} sent a message that cannot be read") from error
        # Both are on one host, with one clock; a node that says something impossible is not believed.
        ready = response.ready_nanoseconds / 1e9
        return Arrived(response, ready if self._submitted_at <= ready <= now else now, len(frame))

    def _last_words(self) -> Exception | None:
        """Return why the node has hung up, if it said so."""
        try:
            response = self._receive().response
        except (NodeLost, NodeTimeout, NodeFault):
            return None
        return self._told(response.failure) if response.HasField("failure") else None

    def _told(self, failure: shard_pb2.Failure) -> ShardmeshError:
        """Return what the node says of itself, as an error."""
        return error_from(Status(code=failure.status, reason=failure.reason, message=failure.message), self.name)

    def _lost(self, error: OSError) -> NodeLost:
        return NodeLost(f"{self.name} is gone ({error.strerror or error})")
