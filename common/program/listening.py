"""A socket that listens, on the kinds of addresses that gRPC's ports listen on.

Covers: one port. Does not cover: who comes (callers.py).
"""

from __future__ import annotations

import socket

BACKLOG = 256
EVERYWHERE = ("0.0.0.0", "::")


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
