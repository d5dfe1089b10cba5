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

from common.machine.durable_files import replace_private

FILE = "observers.txt"
MOST_SERIALS, MOST_LETTERS = 64, 64

log = logging.getLogger(__name__)


class KnownObservers:
    """The serial numbers of good certificates."""

    def __init__(self, identity_directory: Path) -> None:
        """Read what was heard before; what cannot be read is heard again."""
        self._path = identity_directory / FILE
        self._serials: frozenset[str] = frozenset()
        with suppress(OSError, ValueError):
            self._serials = frozenset(self._path.read_text(encoding="ascii").split())
        self._is_kept = True

    def knows(self, serial: str) -> bool:
        """Tell whether a certificate is an observer's and was not revoked."""
        return serial in self._serials

    def hear(self, serials: Sequence[str]) -> None:
        """Take what the coordinator says now; it is written when it is news, or could not be written before."""
        heard = frozenset(serial[:MOST_LETTERS] for serial in serials[:MOST_SERIALS])
        if heard == self._serials and self._is_kept:
            return
        was_kept, self._serials = self._is_kept, heard
        try:
            replace_private(self._path, "".join(f"{serial}\n" for serial in sorted(heard)).encode("ascii", "replace"))
            self._is_kept = True
        except OSError as error:
            self._is_kept = False
            if was_kept:
                log.warning("who may read metrics is known until this node ends, and not kept: %s: %s", self._path,
                            error.strerror)  # fmt: skip
