"""Where does this machine reach a node that says where it listens?

Covers: what a heartbeat says, distrusted: an address, a port on all of its addresses, an address of one link, which
this machine calls otherwise than the node does. Does not cover: its page of metrics (metrics_url.py).
"""

from __future__ import annotations

from common.errors import InputError
from common.wire.addresses import (
    EVERYWHERE,
    host_of_caller,
    host_port,
    is_link_local,
    split_host_port,
    without_zone,
)

MOST_LETTERS = 100


def node_address(listen: str, caller: str) -> str:
    """Return where a node is reached: where it says, or its port on the address that it calls from.

    Args: listen: host:port, [v6]:port or :port; caller: as gRPC names the peer.
    Raises: InputError: it is no address, or one of a link that nobody knows here.
    """
    if len(listen) > MOST_LETTERS or not listen.isprintable():
        raise InputError("the node says that it listens where nobody can")
    host, port = split_host_port(listen if not listen.startswith(":") else f"0.0.0.0{listen}")
    from_host = host_of_caller(caller)
    if host in EVERYWHERE or (is_link_local(host) and without_zone(host) == without_zone(from_host)):
        return host_port(from_host, port)
    if is_link_local(host):
        raise InputError(f"the node listens on {host}, an address of one link alone, and calls from {from_host}, which "
                         f"does not say what link that is here; have it listen on 0.0.0.0:{port}, or give it "
                         "--advertise")  # fmt: skip
    return listen
