"""Carries bytes between a peer's TLS and the server behind a gate, both ways, until either ends.

Covers: one connection, by the thread that calls. Does not cover: who may connect (gate.py), the handshake
(tls_connection.py). As much is held as CHUNK_BYTES each way: who does not read is not read from.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

from common.trust.tls_connection import TlsConnection

CHUNK_BYTES = 1 << 18
LAST_SECONDS = 2.0
"""For the last words of a server that has ended."""
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def relay(connection: TlsConnection, inner: socket.socket, delay: Callable[[list[bytes]], float] | None = None) -> None:
    """Carry bytes until one end has gone.

    Args: delay: told what the peer has sent; returns for how many seconds nothing more is read from it;
    None: it is always read from.
    Raises: OSError: it broke, or the peer's bytes are not its own.
    """
    plain, poll, buffer = connection.plain, select.poll(), memoryview(bytearray(CHUNK_BYTES))
    plain.setblocking(False)
    inner.setblocking(False)
    inward: list[memoryview] = []
    outward: list[memoryview] = []
    reads_at = 0.0
    while True:
        waits = max(0.0, reads_at - time.monotonic()) if reads_at else 0.0
        poll.register(plain, (0 if inward or waits else select.POLLIN) | (select.POLLOUT if outward else 0))
        poll.register(inner, (0 if outward else select.POLLIN) | (select.POLLOUT if inward else 0))
        ready = dict(poll.poll(1000 * waits + 1 if waits else None))
        if ready.get(plain.fileno(), 0) & _GONE:
            return
        if ready.get(inner.fileno(), 0) & _GONE:
            _last_words(connection, inner, buffer, outward)
            return
        if not outward and ready.get(inner.fileno(), 0) & select.POLLIN:
            if not (count := inner.recv_into(buffer)):
                return
            outward = [memoryview(connection.sealed(buffer[:count]))]
        if not inward and ready.get(plain.fileno(), 0) & select.POLLIN:
            if not (count := plain.recv_into(buffer)):
                return
            opened, answer = connection.opened_all(buffer[:count])
            reads_at = time.monotonic() + seconds if delay and (seconds := delay(opened)) else 0.0
            inward = [memoryview(part) for part in opened]
            outward += [memoryview(answer)] if answer else []
        outward, inward = _sent(plain, outward), _sent(inner, inward)


def _sent(to: socket.socket, parts: list[memoryview]) -> list[memoryview]:
    """Send what can be sent now, and return what is left."""
    while parts:
        try:
            count = to.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            break
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][count:]
    return parts


def _last_words(connection: TlsConnection, inner: socket.socket, buffer: memoryview, left: list[memoryview]) -> None:
    """Send on what a server has said before it ended."""
    connection.plain.settimeout(LAST_SECONDS)
    for part in left:
        connection.plain.sendall(part)
    try:
        while count := inner.recv_into(buffer):
            connection.plain.sendall(connection.sealed(buffer[:count]))
    except (BlockingIOError, ssl.SSLError):
        return
