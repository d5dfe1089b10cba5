"""Who was removed in the time that a coordinator has lost, since it was brought back from a backup? Nodes know it.

Each node keeps the last list of good certificates that the authority has signed, and shows it with the first heartbeat
of a connection (shardnode/membership/known_members.py). A list counts that was signed after the backup by a coordinator
that was not brought back from it: who belonged to the mesh by the backup, and has no certificate on the latest such
list, was removed. Each list says itself whether its coordinator was brought back, and when (MemberList.returned): a
list that this coordinator signs in the second of its return, or with a clock that is behind, must not count.
Covers: taking such a list. Does not cover: what a person says at the return (backup.py). Safe from several threads.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress

from common.errors import NotTrusted
from common.program.logs import entry
from common.program.state_files import DAMAGE, read_state, write_state
from common.trust.member_list import MemberList, believed
from coordinator.membership.state import MeshState

FILE = "members.found"

log = logging.getLogger(__name__)


class FoundAgain:
    """What nodes say of the time that was lost."""

    def __init__(self, state: MeshState) -> None:
        self._state, self._path = state, state.directory / FILE
        self._latest: MemberList | None = None
        with suppress(OSError, *DAMAGE):
            kept = read_state(self._path, self._read)
            if self._counts(kept):
                self._take(kept)  # again: there may have been no room for what follows from it

    def hear(self, content: bytes, signature: bytes) -> list[str]:
        """Take a list that a node keeps; return who is removed by it."""
        if not self._state.book.kept.lost[0] or not content:
            return []
        try:
            heard = believed(content, signature, self._state.authority.certificate)
        except NotTrusted:  # of an authority of before, or nonsense: it counts for nothing
            return []
        if not self._counts(heard):
            return []
        kept = {"content": content.hex(), "signature": signature.hex()}
        with suppress(OSError):  # it counts here all the same
            write_state(self._path, json.dumps(kept).encode("ascii"))
        return self._take(heard)

    def _counts(self, heard: MemberList) -> bool:
        """Tell whether a list is of the lost time, and the latest one of it."""
        begins, returned = self._state.book.kept.lost
        is_later = self._latest is None or heard.number > self._latest.number
        return 0 < begins < heard.made_at and heard.returned != returned and is_later

    def _take(self, heard: MemberList) -> list[str]:
        self._latest = heard
        gone = self._state.members.take_list(heard.members, heard.made_at)
        for name in gone:
            log.warning("%s", entry("node was removed in the time that the backup does not know", node=name))
        return gone

    def _read(self, text: bytes) -> MemberList:
        kept = json.loads(text)
        content, signature = bytes.fromhex(kept["content"]), bytes.fromhex(kept["signature"])
        return believed(content, signature, self._state.authority.certificate)

    def lets_in(self, serial: str, made_at: float) -> bool:
        """Tell whether a certificate that the backup does not know is good by the latest list of the lost time."""
        latest, (begins, _) = self._latest, self._state.book.kept.lost
        if latest is None or made_at > latest.made_at or not begins:
            return True
        return serial in latest.members
