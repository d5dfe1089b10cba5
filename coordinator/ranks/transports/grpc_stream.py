"""A session over one long-lived bidirectional gRPC stream; for nodes on other hosts.

Covers: the stream, what ends it, a limit on silence. Does not cover: channels (connecting.py makes them).
Threads: gRPC's own, one that feeds requests to the stream, one that asks it for responses as they come, so that each
carries the instant of its arrival, and one watchdog that cancels a stream whose round takes too long or whose node has
fallen silent. An unreachable host is found by TCP, a frozen one by its missing
heartbeats, or where there are none by HTTP/2 pings (common/wire/rpc.py).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from common.errors import NodeLost, NodeTimeout, ShardmeshError
from common.wire.reaching import answer_of
from common.wire.rpc import error_from_rpc, failures_of
from coordinator.ranks.transports.carriers import OVER_GRPC, Carrier
from coordinator.ranks.transports.transport import ROUND_LIMIT_SECONDS, Arrived
from protos.shardmesh.v1 import shard_pb2, shard_pb2_grpc

ROUNDS_METHOD = "/shardmesh.v1.ShardService/Rounds"
WATCH_SECONDS = 0.25


class GrpcShardClient:
    """See ShardClient."""

    passes_files = takes_packed = False
    together = None

    def __init__(
        self, channel: grpc.Channel, name: str, *, round_limit_seconds: float = ROUND_LIMIT_SECONDS,
        is_silent: Callable[[], bool] = lambda: False, carrier: Carrier = OVER_GRPC,
    ) -> None:  # fmt: skip
        """Args: is_silent: whether the node is heard no more by other ways; asked while an answer is waited for;
        carrier: says why it is gRPC.
        """
        self.name, self.carrier = name, carrier
        self._is_silent = is_silent
        self._is_lost = False
        self.round_limit_seconds = round_limit_seconds
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # One serialized message goes to all ranks, so the stream takes bytes as they are.
        rounds: Any = channel.stream_stream(ROUNDS_METHOD, request_serializer=None, response_deserializer=_arrived)
        self._stream = rounds(self._feed())
        self._arrived: queue.SimpleQueue[Arrived | Exception] = queue.SimpleQueue()
        self._owed = threading.Semaphore(0)
        self._waiting_since: float | None = None
        self._is_over = threading.Event()
        self._timed_out = False
        self._watchdog = threading.Thread(target=self._watch, name="round-watchdog", daemon=True)
        self._watchdog.start()
        self._reading = threading.Thread(target=self._read, name="round-reader", daemon=True)
        self._reading.start()

    def submit(self, message: bytes, files: Sequence[int] = ()) -> None:
        """See ShardClient."""
        assert not files, "passes_files says that there are none"
        self._requests.put(message)
        self._owed.release()

    def collect(self) -> Arrived:
        """See ShardClient."""
        self._waiting_since = time.monotonic()
        try:
            arrived = self._arrived.get()
        finally:
            self._waiting_since = None
        if isinstance(arrived, Arrived):
            return arrived
        self._arrived.put(arrived)  # so it is for whoever asks again
        raise self._failure(arrived) from arrived

    def interrupt(self) -> None:
        """See ShardClient."""
        self._stream.cancel()

    def close(self) -> None:
        """See ShardClient."""
        self._is_over.set()
        self._owed.release()
        self._requests.put(None)
        self._stream.cancel()
        self._watchdog.join()
        self._reading.join()

    def _failure(self, error: Exception) -> ShardmeshError:
        if not isinstance(error, grpc.RpcError):
            return NodeLost(f"{self.name} ended the session")
        if self._is_lost:
            return NodeLost(f"{self.name} is gone (it sends no heartbeats)")
        if self._timed_out:
            return NodeTimeout(f"{self.name} has worked on one block for more than {self.round_limit_seconds:g} s")
        return error_from_rpc(error, self.name)

    def _read(self) -> None:
        """Take as many responses as are owed; more than that stay where flow control holds them."""
        try:
            while self._owed.acquire() and not self._is_over.is_set():
                self._arrived.put(next(self._stream))
        except Exception as error:  # noqa: BLE001 - the thread's edge: whoever collects gets it
            self._arrived.put(error)

    def _feed(self) -> Iterator[bytes]:
        while (message := self._requests.get()) is not None:
            yield message

    def _watch(self) -> None:
        while not self._is_over.wait(min(WATCH_SECONDS, self.round_limit_seconds)):
            since = self._waiting_since
            if since is None:
                continue
            self._timed_out = time.monotonic() - since > self.round_limit_seconds
            self._is_lost = not self._timed_out and time.monotonic() - since > WATCH_SECONDS and self._is_silent()
            if self._timed_out or self._is_lost:
                self._stream.cancel()
                return


def _arrived(message: bytes) -> Arrived:
    """Return a response and the instant, in gRPC's own thread."""
    at = time.perf_counter()
    return Arrived(shard_pb2.RoundsResponse.FromString(message), at, len(message))


def get_stats(
    channel: grpc.Channel, name: str, timeout_seconds: float, is_gone: Callable[[], bool] = lambda: False
) -> shard_pb2.GetStatsResponse:
    """Ask a node for its state, waiting for it to be reachable within the limit.

    Args: is_gone: whether other ways tell meanwhile that it is not there.
    Raises: NodeError: it is not reachable, or answers with an error.
    """
    call = shard_pb2_grpc.ShardServiceStub(channel).GetStats.future(
        shard_pb2.GetStatsRequest(), timeout=timeout_seconds + 1, wait_for_ready=True
    )
    complaint = f"{name} is not reachable; is its shardnode running and the address right?"
    with failures_of(name):
        stats: shard_pb2.GetStatsResponse = answer_of(call, timeout_seconds, complaint, is_gone)
        return stats
