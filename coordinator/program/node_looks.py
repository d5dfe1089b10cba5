"""What do nodes hold and read now? Asked once a second while somebody wants to know, never on a token's path.

Covers: one question to all who are heard, at once, with a deadline: who does not answer holds up no other; bytes read a
second. Does not cover: what is made of it (overview.py), heartbeats (membership/services.py).
Threads: one that asks, from the first `latest` until nobody has wanted to know for WANTED_SECONDS.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc

from common.errors import ShardmeshError
from coordinator.membership.reach import is_alive
from protos.shardmesh.v1 import mesh_pb2, shard_pb2, shard_pb2_grpc

ASK_SECONDS = 1.0
"""Between one question and the next, and the most that a node may take to answer."""
WANTED_SECONDS = 10.0
STALE_SECONDS = 5.0
"""What a node said longer ago is not told any more."""
RATE_SAMPLES = 5
"""Between the first and the last of these a rate is taken."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NodeLook:
    """What a node said of itself."""

    stats: shard_pb2.GetStatsResponse
    read_bytes_per_second: float | None
    """Of weights, from disk; None: it has answered once so far."""


@dataclass(kw_only=True)
class _Heard:
    channel: grpc.Channel
    address: str
    stats: shard_pb2.GetStatsResponse | None = None
    reads: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_SAMPLES))
    """Instants, and bytes read by then, oldest first."""

    def take(self, stats: shard_pb2.GetStatsResponse, at: float) -> None:
        if self.stats is not None and self.stats.incarnation != stats.incarnation:
            self.reads.clear()  # another process, or another slice, which counts from 0
        self.stats = stats
        self.reads.append((at, stats.read_bytes))

    def look(self, now: float) -> NodeLook | None:
        if self.stats is None or now - self.reads[-1][0] > STALE_SECONDS:
            return None
        (first_at, first), (last_at, last) = self.reads[0], self.reads[-1]
        rate = None if last_at <= first_at else max(0, last - first) / (last_at - first_at)
        return NodeLook(stats=self.stats, read_bytes_per_second=rate)


class NodeLooks:
    """Asks while it is asked. Close it."""

    def __init__(self, nodes: Callable[[], Sequence[mesh_pb2.Node]], channel: Callable[[str], grpc.Channel]) -> None:
        """Args: nodes: what the mesh knows of its members now; channel: a new one to the node of a name."""
        self._nodes, self._channel = nodes, channel
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._wanted_until = 0.0
        self._thread: threading.Thread | None = None
        self._heard: dict[str, _Heard] = {}

    def latest(self) -> dict[str, NodeLook]:
        """Return what is known by now, by name, and want to know more. Never waits for a node."""
        now = time.monotonic()
        with self._lock:
            self._wanted_until = now + WANTED_SECONDS
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name="node-looks", daemon=True)
                self._thread.start()
            found = {name: heard.look(now) for name, heard in self._heard.items()}
        return {name: look for name, look in found.items() if look is not None}

    def close(self) -> None:
        """Ask no more. May be called twice."""
        self._ending.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(ASK_SECONDS + 1)

    def _run(self) -> None:
        while self._is_wanted():
            started = time.monotonic()
            try:
                self._ask_all()
            except Exception:  # the thread's edge: who looks on sees nothing of nodes, and the log says why
                log.exception("nodes are asked again, after an unforeseen error")
            self._ending.wait(max(0.0, started + ASK_SECONDS - time.monotonic()))

    def _is_wanted(self) -> bool:
        """Tell whether to go on; else hang up and let another thread begin when somebody wants to know."""
        with self._lock:
            if not self._ending.is_set() and time.monotonic() < self._wanted_until:
                return True
            heard, self._heard = self._heard, {}
            self._thread = None
        for one in heard.values():
            one.channel.close()
        return False

    def _ask_all(self) -> None:
        """Ask every node that is heard, and take what they answer within ASK_SECONDS."""
        at: dict[str, float] = {}
        calls = {}
        for name, heard in self._reached().items():
            call = shard_pb2_grpc.ShardServiceStub(heard.channel).GetStats.future(
                shard_pb2.GetStatsRequest(), timeout=ASK_SECONDS
            )
            call.add_done_callback(lambda done, name=name: at.setdefault(name, time.monotonic()))
            calls[name] = (heard, call)
        for name, (heard, call) in calls.items():
            try:
                stats = call.result()
            except grpc.RpcError:
                continue  # it serves nothing, or does not answer; which, its heartbeats tell
            with self._lock:
                heard.take(stats, at.get(name, time.monotonic()))

    def _reached(self) -> dict[str, _Heard]:
        """Return the nodes that are heard, each with a channel to where it is now."""
        alive = {node.name: node.address for node in self._nodes() if is_alive(node)}
        with self._lock:
            before, self._heard = self._heard, {}
            for name, address in alive.items():
                heard = before.get(name)
                if heard is not None and heard.address == address:
                    self._heard[name] = before.pop(name)
                    continue
                try:
                    self._heard[name] = _Heard(channel=self._channel(name), address=address)
                except ShardmeshError:
                    continue  # it was removed, or fell silent, just now
            reached = dict(self._heard)
        for gone in before.values():
            gone.channel.close()
        return reached
