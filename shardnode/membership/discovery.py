"""Looks for coordinators on the home network, by multicast DNS.

Covers: addresses that somebody has announced. Does not cover: which of them is the right one (join.py): anybody may
announce anything. Threads: zeroconf's own.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

from zeroconf import Error, ServiceBrowser, ServiceListener, Zeroconf

from common.wire.mdns import SERVICE_TYPE

LOOK_SECONDS = 3.0
MOST_ADDRESSES = 16
RESOLVE_MILLISECONDS = 1000


class _Found(ServiceListener):
    """Keeps the names that are announced."""

    def __init__(self) -> None:
        self.names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.put(name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.put(name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """It may be back in a moment; who is asked in vain is left alone anyway."""


def announced_addresses(limit_seconds: float = LOOK_SECONDS) -> Iterator[str]:
    """Yield host:port of every join service that is announced, each once, until the limit."""
    try:
        zeroconf = Zeroconf()
    except OSError:  # no network that has multicast
        return
    seen: set[str] = set()
    try:
        found = _Found()
        browser = ServiceBrowser(zeroconf, SERVICE_TYPE, found)
        ends = time.monotonic() + limit_seconds
        while len(seen) < MOST_ADDRESSES and (left := ends - time.monotonic()) > 0:
            try:
                name = found.names.get(timeout=left)
            except queue.Empty:
                break
            for address in _resolve(zeroconf, name):
                if address not in seen:
                    seen.add(address)
                    yield address
        browser.cancel()
    finally:
        zeroconf.close()


def _resolve(zeroconf: Zeroconf, name: str) -> list[str]:
    try:
        info = zeroconf.get_service_info(SERVICE_TYPE, name, RESOLVE_MILLISECONDS)
    except Error:  # a name that no service can have
        return []
    if info is None or not info.port:
        return []
    return [f"{address}:{info.port}" for address in info.parsed_addresses() if ":" not in address]
