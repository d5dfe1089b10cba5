"""Echoes in frames: what the coordinator measures a way with that its rounds take, on a connection of its own.

Covers: writing and reading them, with distrust. Does not cover: rounds (packed_round.py), echoes over gRPC
(protos/shardmesh/v1/links.proto). Which byte lies where is in protos/shardmesh/v1/shard.proto.

As long as a packed round of as many bytes, and answered in the same form, so that it takes what such a round does.
"""

from __future__ import annotations

import struct
import time
from typing import NamedTuple

from common.errors import InputError, NodeFault
from common.wire.packed_round import DONE_BYTES, BlockDone, pack_done, unpack_done

MOST_BYTES = 4 << 20
"""Of an echo, and of its answer."""
_ECHO = struct.Struct("<BBBxIqq")
_KIND = 3
BEGINNING = bytes((0, _KIND))
"""Of every echo, and of no other message."""


class Echo(NamedTuple):
    """What is asked."""

    call_id: int
    reply_bytes: int
    """Of the answer; it has DONE_BYTES at least."""


def pack_echo(call_id: int, byte_count: int) -> bytes:
    """Return an echo of so many bytes, or a little more where these are too few, which asks for as many."""
    return _ECHO.pack(0, _KIND, 0, byte_count, call_id, 0) + bytes(max(0, byte_count - _ECHO.size))


def unpack_echo(message: bytes | bytearray) -> Echo:
    """Return what is asked. Raises: InputError: it is no echo, or one of more than MOST_BYTES."""
    if not _ECHO.size <= len(message) <= MOST_BYTES or bytes(message[:2]) != BEGINNING:
        raise InputError(f"no echo, where one of {_ECHO.size} to {MOST_BYTES} bytes belongs")
    _, _, flags, reply_bytes, call_id, nothing = _ECHO.unpack_from(message)
    if flags or nothing or reply_bytes > MOST_BYTES:
        raise InputError(f"an echo of {reply_bytes} bytes with flags {flags}; {MOST_BYTES} and 0 are possible")
    return Echo(call_id, reply_bytes)


def pack_echoed(echo: Echo) -> bytes:
    """Return the answer to an echo, ready now."""
    done = pack_done(BlockDone(echo.call_id, time.perf_counter_ns(), 0, 0))
    return done + bytes(max(0, echo.reply_bytes - DONE_BYTES))


def check_echoed(message: bytes | bytearray, echo: Echo, who: str) -> None:
    """Raises: NodeFault: a message of `who` is no answer to an echo."""
    byte_count = max(echo.reply_bytes, DONE_BYTES)
    if len(message) != byte_count or unpack_done(message, who).call_id != echo.call_id:
        raise NodeFault(f"{who} answered an echo with something else")
