"""Messages on a byte stream: four bytes of length, little-endian, then the message.

Covers: whole messages in, whole messages out, a limit on what a peer may announce.
Does not cover: what is in them, who may connect.
"""

from __future__ import annotations

import socket
import struct

from common.errors import ProtocolError

_LENGTH = struct.Struct("<I")


def send_frame(connection: socket.socket, message: bytes) -> None:
    """Send one message. Raises: OSError: the connection is gone or its time-out passed."""
    connection.sendall(_LENGTH.pack(len(message)) + message)


def receive_frame(connection: socket.socket, max_bytes: int) -> bytearray | None:
    """Return the next message, or None when the peer has closed the connection between two messages.

    Raises: ProtocolError: longer than `max_bytes`, or cut short; OSError: as `send_frame`.
    """
    head = _receive_exactly(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > max_bytes:
        raise ProtocolError(f"a message of {length} bytes was announced; at most {max_bytes} are allowed")
    body = _receive_exactly(connection, length)
    if body is None:
        raise ProtocolError("the connection ended inside a message")
    return body


def _receive_exactly(connection: socket.socket, length: int) -> bytearray | None:
    """Return `length` bytes, or None if the stream ends before the first of them."""
    buffer = bytearray(length)
    view = memoryview(buffer)
    filled = 0
    while filled < length:
        count = connection.recv_into(view[filled:])
        if not count:
            if filled:
                raise ProtocolError("the connection ended inside a message")
            return None
        filled += count
    return buffer
