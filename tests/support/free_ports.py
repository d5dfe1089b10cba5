"""Ports that nobody has: two in a row, as a coordinator needs them. Somebody may take them before they are used.

They lie below those that systems give to whoever asks for any: connections of other tests, a thousand at a time, have
theirs there.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress

PORTS = range(12_000, 30_000)


def free_place() -> str:
    """Return such a pair's first place on this machine, host:port."""
    return f"127.0.0.1:{free_port_pair()}"


def free_port_pair() -> int:
    """Return a port that is free on every address of this machine, and the next one is too: devices join there."""
    choice = random.SystemRandom()
    while True:
        port = choice.choice(PORTS)
        with suppress(OSError), socket.create_server(("", port)), socket.create_server(("", port + 1)):
            return port
