"""Which of two devices that show the same certificate is the node? A card that was copied makes two of one.

Covers: telling a copy from a node that restarted or moved. Does not cover: certificates, what is known of a node
(members.py). Not safe to call from several threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from common.errors import NotTrusted
from common.program.logs import entry

FRESH_SECONDS = 3.0
"""A node that was heard so lately is still there, as far as anybody can tell; heartbeats come every second."""
RETURN_SECONDS = 10.0
"""An address that comes back so soon after another one took its place was never given up."""

log = logging.getLogger(__name__)


class Claims:
    """Where each node says that it is, as far as two places speak for one node."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._replaced: dict[str, tuple[str, float]] = {}
        self._refused: dict[str, str] = {}

    def check(self, name: str, address: str, known_address: str, heard_at: float | None) -> None:
        """Let a heartbeat through, unless it is a copy's while the first device is still heard.

        Args: known_address, heard_at: of the heartbeat before. Raises: NotTrusted.
        """
        if address == known_address or heard_at is None or self._clock() - heard_at > FRESH_SECONDS:
            return
        if self._refused.get(name) == address:
            raise NotTrusted(f"another device is {name} already, at {known_address}: was the data directory copied? "
                             "Give this device one of its own, and let it join with a new token and another --name"
                             )  # fmt: skip
        replaced, at = self._replaced.get(name, ("", 0.0))
        if replaced == address and self._clock() - at < RETURN_SECONDS:
            self._refused[name] = known_address
            log.warning("%s", entry(
                "two devices say that they are one node", node=name, address=address, not_heard_address=known_address,
                remedy="was a data directory copied? Let the second join anew, with a name of its own",
            ))  # fmt: skip
        else:
            self._replaced[name] = (known_address, self._clock())
            self._refused.pop(name, None)
