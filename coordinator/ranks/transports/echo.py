"""How long do some bytes to a node and back take, over the same kind of stream as rounds?

Covers: one stream of echoes over gRPC; what a link is for a plan, and what a way is for rounds. Does not cover: echoes
in frames (framed_echoes.py), how often, and what it means (planning/links.py, ranks/link_watch.py).
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol

import grpc

from common.errors import NodeLost
from common.wire.rpc import failures_of
from protos.shardmesh.v1 import links_pb2, links_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class Link:
    """The way to one node."""

    round_trip_seconds: float
    """Of a message of a few bytes and its answer; what both programs take for it is in it."""
    bytes_per_second: float
    """There and back together, one after the other: a kilobyte each way takes twice 1000 / this."""

    def round_seconds(self, byte_count: int) -> float:
        """Return how long so many bytes there and as many back take."""
        return self.round_trip_seconds + 2 * byte_count / self.bytes_per_second


class Way(NamedTuple):
    """The way to one node as echoes have found it: straight lines between those of several sizes.

    Links are not all alike for few bytes and for many: what shapes traffic lets some pass at once.
    """

    points: tuple[tuple[float, float], ...]
    """(bytes there and back together, seconds), with more bytes each, at least one."""

    def seconds(self, byte_count: float) -> float:
        """Return how long so many bytes take, there and back together."""
        before, took = self.points[0]
        slope = 0.0
        for byte_total, seconds in self.points[1:]:
            slope = max(0.0, seconds - took) / (byte_total - before)
            if byte_count <= byte_total:
                break
            before, took = byte_total, seconds
        return took + slope * max(0.0, byte_count - before)

    @property
    def round_trip_seconds(self) -> float:
        """Of the fewest bytes."""
        return self.points[0][1]

    @property
    def bytes_per_second(self) -> float:
        """Of the most, there and back together; 0: not measured."""
        if len(self.points) == 1:
            return 0.0
        (few, quick), (many, slow) = self.points[0], self.points[-1]
        return (many - few) / max(1e-6, slow - quick)


class Echoes(Protocol):
    """A stream of echoes to one node. Use as a context manager."""

    def round(self, byte_count: int) -> float:
        """Return the seconds of one message and its answer of as many bytes. Raises: NodeError, NotTrusted."""

    def send(self, byte_count: int) -> None:
        """Send so many bytes and ask for as many. Raises: NodeError."""

    def receive(self) -> float:
        """Wait for the answer; return when it came (time.perf_counter). Raises: NodeError."""

    def cancel(self) -> None:
        """Have whoever waits for an echo get NodeError at once. From any thread."""

    def __enter__(self) -> Echoes: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class EchoStream:
    """One stream to one node over gRPC. See Echoes."""

    def __init__(self, channel: grpc.Channel, name: str, limit_seconds: float) -> None:
        """Args: limit_seconds: of all echoes together."""
        self._name = name
        self.rounds_port = 0
        """Of the node, once it has answered: where echoes in frames go; 0: nowhere."""
        self._requests: queue.SimpleQueue[links_pb2.EchoRequest | None] = queue.SimpleQueue()
        self._stream = links_pb2_grpc.LinkServiceStub(channel).Echo(self._feed(), timeout=limit_seconds)

    def send(self, byte_count: int) -> None:
        """See Echoes."""
        self._requests.put(links_pb2.EchoRequest(payload=bytes(byte_count), reply_bytes=byte_count))

    def receive(self) -> float:
        """See Echoes."""
        with failures_of(self._name):
            response = next(self._stream, None)
            if response is None:
                raise NodeLost(f"{self._name} ended the measurement")
        self.rounds_port = response.rounds_port
        return time.perf_counter()

    def round(self, byte_count: int) -> float:
        """See Echoes."""
        started = time.perf_counter()
        self.send(byte_count)
        return self.receive() - started

    def cancel(self) -> None:
        """See Echoes."""
        self._requests.put(None)
        self._stream.cancel()

    def _feed(self) -> Iterator[links_pb2.EchoRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def __enter__(self) -> EchoStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
