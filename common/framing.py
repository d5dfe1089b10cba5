"""Messages on a byte stream: four bytes of length, little-endian, then the message.

Covers: whole messages in, whole messages out, a limit on what a peer may announce, a limit on silence.
Does not cover: what is in them, who may connect.

A message that is there takes one system call: the reader asks for as much as it has room for, so the length
comes together with the message, and a limit set on the socket itself needs no poll before each call.
"""

from __future__ import annotations

import socket
import struct

from common.errors import ProtocolError

_LENGTH = struct.Struct("<I")
_TIME_LIMIT = struct.Struct("@ll")  # struct timeval of 64-bit systems: seconds, microseconds
BUFFER_BYTES = 1 << 16


def limit_silence(connection: socket.socket, seconds: float) -> None:
    """Make sends and receives that take longer fail with TimeoutError, without making the socket non-blocking."""
    connection.settimeout(None)
    limit = _TIME_LIMIT.pack(int(seconds), int(seconds % 1 * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def send_frame(connection: socket.socket, message: bytes) -> None:
    """Send one message. Raises: TimeoutError: the limit on silence passed; OSError: the connection is gone."""
    try:
        connection.sendall(_LENGTH.pack(len(message)) + message)
    except BlockingIOError as error:  # what a limit on the socket itself reports
        raise TimeoutError("the peer takes no more bytes") from error


class FrameReader:
    """Takes messages off one connection; keeps what arrived beyond the first one for the next call."""

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        self._connection = connection
        self._max_bytes = max_bytes
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._stop = 0

    def receive(self) -> bytes | None:
        """Return the next message, or None when the peer has closed the connection between two messages.

        Raises: ProtocolError: longer than the limit, or cut short; TimeoutError: the limit on silence passed;
        OSError: the connection is gone.
        """
        if not self._fill(_LENGTH.size):
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, self._start)
        if length > self._max_bytes:
            raise ProtocolError(f"a message of {length} bytes was announced; at most {self._max_bytes} are allowed")
        if length + _LENGTH.size > BUFFER_BYTES:
            return self._receive_long(length)
        self._fill(_LENGTH.size + length)
        first = self._start + _LENGTH.size
        self._start = first + length
        return bytes(self._view[first : self._start])

    def _fill(self, wanted: int) -> bool:
        """Have at least `wanted` bytes in the buffer; tell False if the stream ends before the first of them."""
        if self._start == self._stop:
            self._start = self._stop = 0
        elif self._start + wanted > BUFFER_BYTES:
            rest = bytes(self._view[self._start : self._stop])
            self._view[: len(rest)] = rest
            self._start, self._stop = 0, len(rest)
        while self._stop - self._start < wanted:
            count = self._receive_into(self._view[self._stop :])
            if not count:
                if self._stop > self._start:
                    raise ProtocolError("the connection ended inside a message")
                return False
            self._stop += count
        return True

    def _receive_long(self, length: int) -> bytes:
        """Return a message that the buffer has no room for, read straight into its own memory."""
        message = bytearray(length)
        view = memoryview(message)
        first = self._start + _LENGTH.size
        filled = self._stop - first
        view[:filled] = self._view[first : self._stop]
        self._start = self._stop = 0
        while filled < length:
            count = self._receive_into(view[filled:])
            if not count:
                raise ProtocolError("the connection ended inside a message")
            filled += count
        return bytes(message)

    def _receive_into(self, view: memoryview) -> int:
        try:
            return self._connection.recv_into(view)
        except BlockingIOError as error:  # what a limit on the socket itself reports
            raise TimeoutError("the peer is silent") from error
