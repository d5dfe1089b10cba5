"""Ports that nobody has: two in a row, as a coordinator needs them. Somebody may take them before they are used."""

from __future__ import annotations

import socket

LAST_PORT = 65535


def free_port_pair() -> int:
    """Return a port of loopback that is free, and the next one is too: devices join there."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, socket.socket() as second:
            port: int = first.getsockname()[1]
            if port < LAST_PORT and second.connect_ex(("127.0.0.1", port + 1)):
                return port
