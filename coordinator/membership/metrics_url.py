"""Where can the metrics page be read that a node says it has?

Covers: what a heartbeat says, distrusted, to a URL that others reach; empty where nobody but the node itself does.
Does not cover: telling Prometheus (program/targets.py), who may read pages (common/trust).
"""

from __future__ import annotations

import re

from common.errors import InputError
from common.wire.addresses import EVERYWHERE, host_of_caller, is_loopback, split_host_port, zone_of
from coordinator.membership.node_address import check_peer_host, is_here

MOST_LETTERS = 100
URL = re.compile(r"(https?)://([A-Za-z0-9_.:%\[\]-]+)")


def metrics_url(said: str, caller: str) -> str:
    """Return scheme://host:port of a node's page as this machine reaches it; empty: it has none, or none for others.

    A page in plain lies on the node's loopback, so it counts only where that is this machine's; one over TLS lies where
    the node says, or, if that is everywhere, where it calls from.
    Args: caller: gRPC's name of the peer, such as ipv4:10.0.0.2:4711. Raises: InputError: it is no such URL.
    """
    if not said:
        return ""
    parts = URL.fullmatch(said) if len(said) <= MOST_LETTERS else None
    if parts is None:
        raise InputError("the node says that its metrics are where nobody can read them")
    host, port = split_host_port(parts[2])
    from_host = host_of_caller(caller)
    if parts[1] == "http":
        return said if is_loopback(host) and is_here(from_host) else ""
    if is_loopback(host):
        return said if is_here(from_host) else ""
    if host not in EVERYWHERE:
        check_peer_host(host, from_host)
    reached = from_host if host in EVERYWHERE else host
    return "" if zone_of(reached) else f"https://{reached}:{port}"
