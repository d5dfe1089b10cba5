"""Which way do echoes to a node take? The one of its rounds: in frames beside them, else over gRPC.

Covers: choosing, and a node of an earlier build, which takes rounds in frames and knows no echoes there.
Does not cover: the streams (framed_echoes.py, echo.py), when there are any (ranks/link_watch.py,
coordinator/planning/links.py).
Not safe for several threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import grpc

from common.errors import NodeLost, NodeTimeout, ShardmeshError
from common.program.logs import entry
from coordinator.ranks.transports.echo import Echoes, EchoStream
from coordinator.ranks.transports.framed_echoes import FramedEchoes
from coordinator.ranks.transports.framed_tcp import FramedTcpClient

log = logging.getLogger(__name__)


class EchoLane:
    """The ways of one node's echoes."""

    def __init__(
        self, name: str, channel: grpc.Channel, connect: Callable[[], FramedTcpClient] | None = None
    ) -> None:  # fmt: skip
        """Args: connect: makes a connection in frames; None: rounds go otherwise."""
        self.name, self._channel, self._connect = name, channel, connect

    @property
    def is_framed(self) -> bool:
        """Whether the next stream is in frames."""
        return self._connect is not None

    def stream(self, limit_seconds: float) -> Echoes:
        """Return a stream of echoes. Args: limit_seconds: how long they may take. Raises: NodeLost, NotTrusted."""
        if self._connect is None:
            return EchoStream(self._channel, self.name, limit_seconds)
        return FramedEchoes(self._connect(), limit_seconds)

    def failed(self, error: ShardmeshError) -> None:
        """Take note that a stream has ended so: over gRPC from now on, if the node has said that it knows no echoes."""
        if self._connect is not None and not isinstance(error, NodeLost | NodeTimeout):
            self.over_grpc(error)

    def over_grpc(self, error: ShardmeshError) -> None:
        """Have echoes go over gRPC from now on. Args: why."""
        log.debug("%s", entry("echoes over gRPC", node=self.name, error=error))
        self._connect = None
