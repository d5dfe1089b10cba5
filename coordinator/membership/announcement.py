"""Tells the home network where devices may join, by multicast DNS, while they may.

Covers: one service of this coordinator, announced over IPv4 and over IPv6, and taken back.
Does not cover: when (program/door.py), who looks (shardnode/membership/discovery.py).
Threads: zeroconf's, and one that announces, since that takes a second of asking around.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence

from zeroconf import Error, ServiceInfo, Zeroconf

from common.program.logs import entry
from common.wire.addresses import bare, without_zone
from common.wire.mdns import SERVICE_TYPE

log = logging.getLogger(__name__)


class Announcement:
    """An announced join service. Close it to take it back."""

    def __init__(self, mesh_name: str, addresses: Sequence[str], port: int) -> None:
        """Announce in the background. Args: addresses: numbers of this machine that others reach."""
        self._mesh_name, self._port = mesh_name, port
        self._addresses = list(addresses)
        self._announced: list[Zeroconf] = []
        self._thread = threading.Thread(target=self._announce, name="mdns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take it back. May be called twice."""
        self._thread.join()
        while self._announced:
            self._announced.pop().close()  # says goodbye for what was announced

    def _announce(self) -> None:
        troubles = []
        for is_ipv6 in (False, True):
            interfaces = [bare(address) for address in self._addresses if (":" in address) is is_ipv6]
            try:
                if interfaces:
                    self._announce_on(interfaces)
            except (OSError, Error, RuntimeError) as error:  # no multicast here, or not an address of this machine's
                troubles.append(error)
        if troubles and not self._announced:  # tokens with addresses work all the same
            log.warning("%s", entry("devices cannot find this coordinator by themselves", error=troubles[0]))

    def _announce_on(self, interfaces: list[str]) -> None:
        """Announce all addresses to who listens on some, all of one kind: by a name of its own, as no two may share."""
        zeroconf = Zeroconf(interfaces=interfaces)
        self._announced.append(zeroconf)
        zeroconf.register_service(ServiceInfo(
            SERVICE_TYPE, f"{self._mesh_name}-{secrets.token_hex(3)}.{SERVICE_TYPE}", port=self._port,
            parsed_addresses=[without_zone(address) for address in self._addresses],
        ))  # fmt: skip
