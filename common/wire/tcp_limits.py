"""How soon is it noticed that nobody is at the other end of a TCP connection, and that bytes are still on their way?

Covers: what the system does by itself (probes, a limit to bytes that nobody acknowledges), what differs between
systems. Does not cover: programs that are frozen while their system answers (signs of life: framed sessions).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

PROBE_SECONDS, PROBES = 5, 3
UNHEARD_SECONDS = 20.0
"""Nothing acknowledged for so long, or no probe answered: the connection is over."""


def prepare_tcp(connection: socket.socket) -> None:
    """Have short messages go at once, and the system end a connection whose peer is not there."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", PROBE_SECONDS), ("TCP_KEEPALIVE", PROBE_SECONDS), ("TCP_KEEPINTVL", PROBE_SECONDS),
        ("TCP_KEEPCNT", PROBES), ("TCP_USER_TIMEOUT", int(UNHEARD_SECONDS * 1000)),
    ):  # fmt: skip
        if hasattr(socket, name):  # of these each system has some
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def bytes_under_way(connection: socket.socket) -> int:
    """Return how many bytes the peer's system has not acknowledged; 0 where the system does not tell."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return 0
