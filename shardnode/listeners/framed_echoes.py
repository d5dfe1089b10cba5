"""Answers echoes in frames, with which the coordinator measures the way that its rounds take.

Covers: one connection of them, from the first message to its end; a bounded number of them, each of a bounded size.
Does not cover: who may connect, and for how long (frames.py), echoes over gRPC (link_service.py).
"""

from __future__ import annotations

from common.errors import InputError, ShardmeshError
from common.wire.framing import FrameReader, Stream, send_frame
from common.wire.packed_echo import BEGINNING, pack_echoed, unpack_echo
from shardnode.listeners.framed_session import failure_of

MOST_ECHOES = 64
"""Of one connection; a look takes eight. Whoever wants more shakes hands again."""


def is_of_echoes(reader: FrameReader) -> bool:
    """Tell whether a connection's first message is an echo. Raises: OSError: there is none in time."""
    return reader.peek(len(BEGINNING)) == BEGINNING


def answer_echoes(connection: Stream, reader: FrameReader) -> None:
    """Answer until the peer has had enough; what is no echo, or one too many, in words. Raises: OSError."""
    try:
        for _ in range(MOST_ECHOES):
            message = reader.receive()
            if message is None:
                return
            send_frame(connection, pack_echoed(unpack_echo(message)))
        raise InputError(f"no more than {MOST_ECHOES} echoes of one connection")
    except ShardmeshError as error:
        send_frame(connection, failure_of(error))
