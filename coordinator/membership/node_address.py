"""Where does this machine reach a node that says where it listens?

Covers: what a heartbeat says, distrusted: an address, a port on all of its addresses, an address of one link, which
this machine calls otherwise than the node does; addresses to which nobody may have this machine, or Prometheus, send
anything. Does not cover: its page of metrics (metrics_url.py).
"""

from __future__ import annotations

import psutil

from common.errors import InputError
from common.wire.addresses import (
    EVERYWHERE,
    host_of_caller,
    host_port,
    is_ipv4_link_local,
    is_link_local,
    is_loopback,
    split_host_port,
    why_no_peer,
    without_zone,
)

MOST_LETTERS = 100


def node_address(listen: str, caller: str) -> str:
    """Return where a node is reached: where it says, or its port on the address that it calls from.

    Args: listen: host:port, [v6]:port or :port; caller: as gRPC names the peer.
    Raises: InputError: it is no address, one of a link that nobody knows here, or none where a node can be.
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
    check_peer_host(host, from_host)
    if not port:
        raise InputError("the node says that it listens on port 0, where nobody can")
    return listen


def check_peer_host(host: str, from_host: str) -> None:
    """Refuse a host where no peer that calls from `from_host` can be.

    What a peer says is connected to by this machine and by Prometheus, so it must not name this machine's own services,
    nor a cloud's. Raises: InputError.
    """
    why = why_no_peer(host)
    if not why and is_loopback(host) and not is_here(from_host):
        why = f"this machine's own, and it calls from {from_host}"
    if not why and is_ipv4_link_local(host) and host != from_host:
        why = f"of one link alone, and it calls from {from_host}"
    if why:
        raise InputError(f"the node says that it is reached at {host}, which is {why}; have it listen on 0.0.0.0, or "
                         "give it --advertise")  # fmt: skip


def is_here(host: str) -> bool:
    """Tell whether an address is this machine's own."""
    if is_loopback(host):
        return True
    own = {without_zone(address.address) for addresses in psutil.net_if_addrs().values() for address in addresses}
    return without_zone(host) in own
