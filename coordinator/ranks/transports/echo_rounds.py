"""How long does a round take in which nobody computes? As many bytes to several nodes at once, as rounds send them.

Covers: in frames in one call of C where it takes the bytes, one after another where not, or over gRPC. Does not cover:
the streams (framed_echoes.py, echo.py), what it means (coordinator/planning).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from common.wire.packed_echo import Echo, check_echoed, pack_echo
from coordinator.ranks.transports.echo import Echoes
from coordinator.ranks.transports.exchange import Group, group_of
from coordinator.ranks.transports.framed_echoes import FramedEchoes


class EchoRounds:
    """Rounds of echoes over streams that nobody else uses. Not safe for several threads."""

    def __init__(self, streams: Sequence[Echoes]) -> None:
        self._streams = streams
        framed = [stream for stream in streams if isinstance(stream, FramedEchoes)]
        self._framed = framed if len(framed) == len(streams) else []
        self._group: Group | None = group_of([one.client.together for one in self._framed]) if self._framed else None
        self._call_id = 0

    def seconds(self, byte_count: int) -> float:
        """Return what one takes, from the first message to the last answer of as many bytes. Raises: NodeError."""
        self._call_id += 1
        message = pack_echo(self._call_id, byte_count)
        started = time.perf_counter()
        if self._group is None or not self._group.takes(message):
            for stream in self._streams:
                stream.send(byte_count)
            return max([stream.receive() for stream in self._streams]) - started
        self._group.send(message)
        arrived = [one.client.collect() for one in self._framed]
        for one, answer in zip(self._framed, arrived, strict=True):
            check_echoed(answer.message, Echo(self._call_id, byte_count), one.client.name)
        return max([answer.at for answer in arrived]) - started
