"""Echoes over a connection in frames, as rounds go, beside theirs.

Covers: one connection of them. Does not cover: connecting (connecting.py), what they are (common/wire/packed_echo.py),
echoes over gRPC (echo.py).
"""

from __future__ import annotations

import time
from types import TracebackType

from common.wire.packed_echo import Echo, check_echoed, pack_echo
from coordinator.ranks.transports.framed_tcp import FramedTcpClient


class FramedEchoes:
    """One connection to one node, where nothing else is sent. See echo.Echoes."""

    def __init__(self, client: FramedTcpClient, limit_seconds: float) -> None:
        """Args: limit_seconds: of each echo."""
        self.client, client.round_limit_seconds = client, limit_seconds
        """Whose connection it is; who sends otherwise over it sends all."""
        self._call_id = self._byte_count = 0

    def round(self, byte_count: int) -> float:
        """See echo.Echoes."""
        started = time.perf_counter()
        self.send(byte_count)
        return self.receive() - started

    def send(self, byte_count: int) -> None:
        """See echo.Echoes."""
        self._call_id, self._byte_count = self._call_id + 1, byte_count
        self.client.submit(pack_echo(self._call_id, byte_count))

    def receive(self) -> float:
        """See echo.Echoes."""
        arrived = self.client.collect()
        check_echoed(arrived.message, Echo(self._call_id, self._byte_count), self.client.name)
        return arrived.at

    def cancel(self) -> None:
        """See echo.Echoes."""
        self.client.interrupt()

    def __enter__(self) -> FramedEchoes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
