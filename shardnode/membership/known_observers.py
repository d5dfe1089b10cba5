"""Whose certificate lets an observer read this node's metrics? What the coordinator said last, also after a restart.

Covers: hearing it with each heartbeat, keeping it beside the identity. Does not cover: what a page looks at
(common/trust/metrics_door.py). One thread hears, any may ask.

Only what is on the list is good: a node that has never heard one lets no observer in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.program.logs import entry
from common.program.state_files import DAMAGE, read_state, write_state
from common.trust.certificates import fingerprint

FILE = "observers.pem"
"""The certificate of their authority, and below it a good serial number a line."""
MOST_SERIALS, MOST_LETTERS = 64, 64
_END = b"-----END CERTIFICATE-----\n"

log = logging.getLogger(__name__)


class KnownObservers:
    """The serial numbers of good certificates, and who has signed those."""

    def __init__(self, identity_directory: Path) -> None:
        """Read what was heard before; what cannot be read is heard again."""
        self._path = identity_directory / FILE
        self._authority, self._serials = b"", frozenset[str]()
        with suppress(OSError, *DAMAGE):
            self._authority, self._serials = read_state(self._path, _parsed)
        self._is_kept = True

    @property
    def authority(self) -> bytes:
        """The certificate of their authority, in PEM; empty: nobody has been heard of."""
        return self._authority

    def knows(self, serial: str) -> bool:
        """Tell whether a certificate is an observer's and was not revoked."""
        return serial in self._serials

    def hear(self, serials: Sequence[str], authority: bytes) -> None:
        """Take what the coordinator says now; it is written when it is news, or could not be written before.

        Raises: NotTrusted: that is no authority; nothing has changed.
        """
        heard = frozenset(serial[:MOST_LETTERS] for serial in serials[:MOST_SERIALS])
        if (authority, heard) == (self._authority, self._serials) and self._is_kept:
            return
        if authority:
            fingerprint(authority)
        was_kept, self._authority, self._serials = self._is_kept, authority, heard
        try:
            write_state(self._path, authority + "".join(f"{serial}\n" for serial in sorted(heard)).encode())
            self._is_kept = True
        except OSError as error:
            self._is_kept = False
            if was_kept:
                log.warning("%s", entry("who may read metrics is not kept beyond this node's end", path=self._path,
                                        error=error.strerror))  # fmt: skip


def _parsed(content: bytes) -> tuple[bytes, frozenset[str]]:
    """Return the authority of a file, and the serial numbers below it."""
    authority, end, serials = content.partition(_END)
    fingerprint(authority + end)  # it is one
    return authority + end, frozenset(serials.decode("ascii").split())
