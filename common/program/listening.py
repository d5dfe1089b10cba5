"""A socket that listens on the address that was asked for, and whose call it has taken.

Covers: all addresses of both kinds, zones of IPv6, whether a caller has gone. Does not cover: how they are
written (common/wire/addresses.py), who may stay (callers.py).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

BACKLOG = 256
EVERYWHERE = ("0.0.0.0", "::")
MAPPED = "::ffff:"
"""Before a number of IPv4 that calls a socket of both kinds."""


def host_of(address: Sequence[Any]) -> str:
    """Return the host of a socket's address; with its zone, by number, where it means something on one link alone."""
    host, zone = str(address[0]).removeprefix(MAPPED), address[3] if len(address) > 3 else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens without blocking; for `::` and 0.0.0.0 on all addresses of both kinds, as gRPC's do.

    Raises: OSError.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if address[0] in EVERYWHERE and socket.has_dualstack_ipv6():
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    else:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)  # all of it: of IPv6 it has a link
    listener.setblocking(False)
    return listener


def has_ended(connection: socket.socket) -> bool:
    """Tell whether a connection that is ready to be read is at its end, and has sent nothing before it."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True
