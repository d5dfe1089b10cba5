"""Who was removed in the time that a coordinator has lost, since it was brought back from a backup? Nodes know it.

Each node keeps the last list of good certificates that the authority has signed, and shows it with the first heartbeat
of a connection (shardnode/membership/known_members.py). A list that was signed between the backup and its return
counts: who belonged to the mesh by the backup, and has no certificate on the latest such list, was removed.
Covers: taking such a list. Does not cover: what a person says at the return (backup.py). Safe from several threads.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress

from common.errors import NotTrusted, ResourceError
from common.program.logs import entry
from common.program.state_files import DAMAGE, read_state, write_state
from common.trust.certificates import LEAF_LIFETIME
from common.trust.member_list import MemberList, believed
from coordinator.membership.book import Member
from coordinator.membership.state import MeshState

FILE = "members.found"

log = logging.getLogger(__name__)


class FoundAgain:
    """What nodes say of the time that was lost."""

    def __init__(self, state: MeshState) -> None:
        self._state, self._path = state, state.directory / FILE
        self._latest: MemberList | None = None
        with suppress(OSError, *DAMAGE):
            self._latest = read_state(self._path, self._read)

    def hear(self, content: bytes, signature: bytes) -> list[str]:
        """Take a list that a node keeps; return who is removed by it."""
        begins, ends = self._state.book.kept.lost
        if not begins or not content:
            return []
        try:
            heard = believed(content, signature, self._state.authority.certificate)
        except NotTrusted:  # of an authority of before, or nonsense: it counts for nothing
            return []
        if not begins < heard.made_at <= ends or (self._latest is not None and heard.number <= self._latest.number):
            return []
        self._latest = heard
        kept = {"content": content.hex(), "signature": signature.hex()}
        with suppress(OSError):  # it counts here all the same
            write_state(self._path, json.dumps(kept).encode("ascii"))
        gone = [member.name for member in self._state.members.all() if self._was_removed(member, heard, begins)]
        for name in gone:
            with suppress(ResourceError):  # it is removed here, and on the disk with the next change
                self._state.members.remove(name)
            log.warning("%s", entry("node was removed in the time that the backup does not know", node=name))
        return gone

    def _read(self, text: bytes) -> MemberList:
        kept = json.loads(text)
        content, signature = bytes.fromhex(kept["content"]), bytes.fromhex(kept["signature"])
        return believed(content, signature, self._state.authority.certificate)

    def lets_in(self, serial: str, made_at: float) -> bool:
        """Tell whether a certificate is good by the latest list of the lost time; there may be none."""
        latest, (begins, _) = self._latest, self._state.book.kept.lost
        if latest is None or made_at > latest.made_at or not begins:
            return True
        return serial in latest.members

    def _was_removed(self, member: Member, heard: MemberList, begins: int) -> bool:
        """Tell it of a member that the backup knew: one that has only renewed since shows it when it comes."""
        made = member.certificate_ends - LEAF_LIFETIME.total_seconds()
        return made <= begins and not member.restored_from and not heard.members & set(member.serials)
