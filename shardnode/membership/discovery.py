"""Looks for coordinators on the home network, by multicast DNS.

Covers: addresses that somebody has announced, over IPv4 and over IPv6, as this device may use them.
Does not cover: which of them is the right one (join.py): anybody may announce anything. Threads: zeroconf's own.
"""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
from zeroconf import Error, InterfaceChoice, ServiceBrowser, ServiceListener, Zeroconf

from common.wire.addresses import host_port, is_link_local, with_link_named, zone_of
from common.wire.mdns import SERVICE_TYPE

LOOK_SECONDS = 3.0
MOST_ADDRESSES = 16
RESOLVE_MILLISECONDS = 1000


class _Found(ServiceListener):
    """Keeps the names that are announced."""

    def __init__(self) -> None:
        self.names: queue.SimpleQueue[tuple[Zeroconf, str]] = queue.SimpleQueue()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.put((zc, name))

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.put((zc, name))

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """It may be back in a moment; who is asked in vain is left alone anyway."""


def announced_addresses(limit_seconds: float = LOOK_SECONDS) -> Iterator[str]:
    """Yield host:port of every join service that is announced, each once, until the limit."""
    seen: set[str] = set()
    looking: list[Zeroconf] = []
    try:
        found = _Found()
        places: list[InterfaceChoice | list[str]] = [InterfaceChoice.All]  # of IPv4
        if links := _ipv6_links():
            places.append(links)
        for interfaces in places:
            with suppress(OSError, RuntimeError):  # no network that has multicast of this kind
                looking.append(Zeroconf(interfaces=interfaces))
                ServiceBrowser(looking[-1], SERVICE_TYPE, found)
        ends = time.monotonic() + limit_seconds
        while looking and len(seen) < MOST_ADDRESSES and (left := ends - time.monotonic()) > 0:
            try:
                zeroconf, name = found.names.get(timeout=left)
            except queue.Empty:
                break
            for address in _resolve(zeroconf, name):
                if address not in seen:
                    seen.add(address)
                    yield address
    finally:
        for zeroconf in looking:
            zeroconf.close()  # and what looks with it


def _ipv6_links() -> list[str]:
    """Return this device's address on each link that has IPv6."""
    return [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET6 and is_link_local(entry.address)
    ]


def _resolve(zeroconf: Zeroconf, name: str) -> list[str]:
    try:
        info = zeroconf.get_service_info(SERVICE_TYPE, name, RESOLVE_MILLISECONDS)
    except Error:  # a name that no service can have
        return []
    if info is None or not info.port:
        return []
    hosts = map(with_link_named, info.parsed_scoped_addresses())
    return [host_port(host, info.port) for host in hosts if zone_of(host) or not is_link_local(host)]
