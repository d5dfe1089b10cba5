"""Tells systemd how a service is: ready, alive, stopping. Says nothing where systemd did not ask.

Covers: the datagrams of sd_notify(3), the watchdog's interval. Does not cover: whether a service is alive (it knows).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

LOOKS_PER_WATCHDOG = 3
"""How often a service looks at itself within the time after which systemd would restart it."""
STOP_SECONDS = 30.0
"""How long systemd is to wait for the end, from its begin on; as in our units (deploy/systemd)."""
IDLE_SECONDS = 3600.0
"""How often the loop turns where nobody watches."""


class ServiceNotifier:
    """One service, as systemd sees it."""

    def __init__(self) -> None:
        """Read what systemd asks for from the environment, which children then do not inherit."""
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog = os.environ.pop("WATCHDOG_USEC", "")
        is_ours = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.look_seconds = IDLE_SECONDS
        """How long to wait between two looks."""
        if self._address and is_ours and watchdog.isdecimal() and int(watchdog):
            self.look_seconds = int(watchdog) / 1e6 / LOOKS_PER_WATCHDOG

    def run(self, stopping: threading.Event, is_alive: Callable[[], bool], status: str) -> None:
        """Say that the service is ready, then until `stopping` that it is alive, as long as `is_alive` finds so."""
        self._send(f"READY=1\nSTATUS={status}")
        while not stopping.wait(self.look_seconds):
            if is_alive():
                self._send("WATCHDOG=1")
        # Units of earlier builds allow less.
        self._send(f"STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={round(STOP_SECONDS * 1e6)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as own,
        ):
            own.sendto(message.encode(), address)
