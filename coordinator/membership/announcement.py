"""Tells the home network where devices may join, by multicast DNS, while they may.

Covers: one service of this coordinator, announced and taken back. Does not cover: when (program/door.py), who looks
(shardnode/membership/discovery.py). Threads: zeroconf's, and one that announces, since that takes a second of asking
around.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Sequence

from zeroconf import Error, ServiceInfo, Zeroconf

from common.program.logs import entry
from common.wire.mdns import SERVICE_TYPE

log = logging.getLogger(__name__)


class Announcement:
    """An announced join service. Close it to take it back."""

    def __init__(self, mesh_name: str, addresses: Sequence[str], port: int) -> None:
        """Announce in the background. Args: addresses: IPv4, of this machine, that others reach."""
        self._info = ServiceInfo(
            SERVICE_TYPE, f"{mesh_name}-{secrets.token_hex(3)}.{SERVICE_TYPE}", port=port,
            addresses=[socket.inet_aton(address) for address in addresses],
        )  # fmt: skip
        self._addresses = list(addresses)
        self._zeroconf: Zeroconf | None = None
        self._thread = threading.Thread(target=self._announce, name="mdns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take it back. May be called twice."""
        self._thread.join()
        if self._zeroconf is not None:
            self._zeroconf.close()  # says goodbye for what was announced
            self._zeroconf = None

    def _announce(self) -> None:
        try:
            self._zeroconf = Zeroconf(interfaces=self._addresses)
            self._zeroconf.register_service(self._info)
        except (OSError, Error) as error:  # no multicast here: tokens with addresses work all the same
            log.warning("%s", entry("devices cannot find this coordinator by themselves", error=error))
