"""What a program and the processes that read its models' tokenizers say to each other: JSON with its length in front.

Covers: one message on a stream, its size bounded, how long it may take. Does not cover: what messages mean (apart.py,
nursery_program.py).
"""

from __future__ import annotations

import json
import socket
from typing import Any

MOST_BYTES = 1 << 28
"""Of one message: the longest prompt, escaped."""
_LENGTH_BYTES = 4
_PIECE_BYTES = 1 << 16


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message. Raises: OSError: nobody listens any more."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    connection.sendall(len(body).to_bytes(_LENGTH_BYTES, "little") + body)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next message; None where the other end is gone, or says what is none.

    Raises: TimeoutError: nothing came for as long as the socket waits.
    """
    try:
        length = int.from_bytes(_exactly(connection, _LENGTH_BYTES), "little")
        if length > MOST_BYTES:
            return None
        message = json.loads(_exactly(connection, length))
    except (EOFError, ConnectionError, ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _exactly(connection: socket.socket, count: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        piece = connection.recv(min(count - len(pieces), _PIECE_BYTES))
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)
