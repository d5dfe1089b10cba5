"""Messages on a byte stream: four bytes of length, little-endian, then the message.

Covers: whole messages in, whole messages out, a limit on what a peer may announce, a limit on silence.
Does not cover: what is in them, who may connect.

A message that is there takes one system call: the reader asks for as much as it has room for, so the length
comes together with the message, and a limit set on the socket itself needs no poll before each call.

Short messages are joined with their length and copied out of the buffer: below LONG_BYTES that is cheaper than what it
saves. Long ones are neither joined nor copied: the kernel gathers them, and they are read into their own memory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Protocol

from common.errors import ProtocolError

_LENGTH = struct.Struct("<I")
_TIME_LIMIT = struct.Struct("@ll")  # struct timeval of 64-bit systems: seconds, microseconds
BUFFER_BYTES = 1 << 16
LONG_BYTES = 1 << 16
"""From this length on, a copy of a message costs more than what avoids it."""
ROOM_BYTES = 4 << 20
"""What a sender may have under way; a message of 512 rows of a small model has 1.2 MB."""


class Stream(Protocol):
    """What frames go over: a socket, or TLS on one (common/trust/tls_connection.py)."""

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all of it."""

    def sendmsg(self, parts: Sequence[bytes | memoryview], /) -> int:
        """Send some or all of several parts, and return how many bytes that were."""

    def recv_into(self, view: memoryview, /) -> int:
        """Wait for the first byte, put what has come into `view` and return how many bytes that were; 0: the end."""

    def shutdown(self, how: int, /) -> None:
        """End sending, receiving or both."""

    def close(self) -> None:
        """End it."""


def limit_silence(connection: socket.socket, seconds: float) -> None:
    """Make sends and receives that take longer fail with TimeoutError, without making the socket non-blocking."""
    connection.settimeout(None)
    limit = _TIME_LIMIT.pack(int(seconds), int(seconds % 1 * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def give_room(connection: socket.socket) -> None:
    """Let the kernel keep a whole long message that the peer has not read yet, or as much of it as the system allows.

    A sender that need not wait for its peer goes on with the next one: with the default of about 200 kB a coordinator
    stood beside each node in turn while it read a prompt, and nodes beside the coordinator with their answers.
    """
    with contextlib.suppress(OSError):  # some systems refuse what others cut
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)


def framed(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return _LENGTH.pack(len(message)) + message


def send_frame(connection: Stream, message: bytes) -> None:
    """Send one message. Raises: TimeoutError: the limit on silence passed; OSError: the connection is gone."""
    try:
        if len(message) < LONG_BYTES:
            connection.sendall(framed(message))
        else:
            _send_long(connection, message)
    except BlockingIOError as error:  # what a limit on the socket itself reports
        raise TimeoutError("the peer takes no more bytes") from error


def send_frame_with_files(connection: socket.socket, message: bytes, files: Sequence[int]) -> None:
    """Send one message over a Unix socket together with descriptors, which stay open here. Raises: as `send_frame`."""
    whole = framed(message)
    try:
        sent = socket.send_fds(connection, [whole], files)
        connection.sendall(whole[sent:])
    except BlockingIOError as error:  # what a limit on the socket itself reports
        raise TimeoutError("the peer takes no more bytes") from error


def close_files(files: Sequence[int]) -> None:
    """Close descriptors that arrived with a message."""
    for descriptor in files:
        os.close(descriptor)


def _send_long(connection: Stream, message: bytes) -> None:
    """Send the length and the message from where they lie; the first call may take any part of them."""
    length = _LENGTH.pack(len(message))
    sent = connection.sendmsg([length, message])
    if sent < len(length):
        connection.sendall(length[sent:])
        sent = len(length)
    if sent < len(length) + len(message):
        connection.sendall(memoryview(message)[sent - len(length) :])


class FrameReader:
    """Takes messages off one connection; keeps what arrived beyond the first one for the next call."""

    def __init__(self, connection: Stream, max_bytes: int) -> None:
        self._connection = connection
        self._max_bytes = max_bytes
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._stop = 0
        self._files: list[int] = []
        self._most_files = 0

    def receive_with_files(self, most: int) -> tuple[bytes | None, Sequence[int]]:
        """Return the next message as `receive` does, and the descriptors that came with it, for the caller to close.

        Args: most: descriptors beyond so many are closed.
        """
        self._most_files = most
        try:
            message = self.receive()
        except BaseException:
            close_files(self._files)
            raise
        finally:
            files, self._files, self._most_files = self._files, [], 0
        return message, files

    def receive(self) -> bytes | None:
        """Return the next message, or None when the peer has closed the connection between two messages.

        It is the caller's own memory. A long one is a bytearray, which protobuf reads as it reads bytes.

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

    def peek(self, most: int) -> bytes:
        """Return the first bytes of the next message, `most` of them or all, and leave it where it is.

        b"" where the connection ends before they are there. Raises: TimeoutError, OSError: as `receive`.
        """
        with contextlib.suppress(ProtocolError):  # whoever receives hears of it
            if self._fill(_LENGTH.size):
                (length,) = _LENGTH.unpack_from(self._buffer, self._start)
                count = min(length, most)
                self._fill(_LENGTH.size + count)
                first = self._start + _LENGTH.size
                return bytes(self._view[first : first + count])
        return b""

    def put(self, data: bytes) -> bytes | None:
        """Take bytes that came by another way, after all that came so far; fewer than there is room for.

        Returns: the message, if they are exactly one; otherwise it is for `receive` to take them apart.
        """
        if self._start == self._stop:
            if len(data) > _LENGTH.size and _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size:
                return data[_LENGTH.size :]
            self._start = self._stop = 0
        self._view[self._stop : self._stop + len(data)] = data
        self._stop += len(data)
        return None

    @property
    def is_holding(self) -> bool:
        """Whether something has come that was not taken yet, if perhaps not a whole message."""
        return self._stop > self._start

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
        return message  # type: ignore[return-value]  # protobuf takes both without a copy; its stubs know only bytes

    def _receive_into(self, view: memoryview) -> int:
        try:
            return self._receive_files_too(view) if self._most_files else self._connection.recv_into(view)
        except BlockingIOError as error:  # what a limit on the socket itself reports
            raise TimeoutError("the peer is silent") from error

    def _receive_files_too(self, view: memoryview) -> int:
        """Receive as `recv_into` does, and keep the descriptors that come along; socket.recv_fds ignores its flags."""
        most_bytes = socket.CMSG_SPACE(self._most_files * array("i").itemsize)
        close_on_exec = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux; elsewhere nobody sends files
        unix: socket.socket = self._connection  # type: ignore[assignment]  # whoever asks for files has one
        count, ancillary, _, _ = unix.recvmsg_into([view], most_bytes, close_on_exec)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                files = array("i", data[: len(data) - len(data) % array("i").itemsize])
                room = self._most_files - len(self._files)
                self._files += files[:room]
                close_files(files[room:])
        return count
