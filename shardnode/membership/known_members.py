"""Whom does this node let in that shows a certificate of its mesh? What the authority has last signed says so.

Covers: hearing the list, the higher number wins; keeping it beside the identity, so that who was removed is refused
after a restart too, while the coordinator is away. Does not cover: roles (common/trust/member_door.py). One thread
hears, any may ask.

A coordinator that has renewed its certificate since is good all the same: the authority made that later than the list.
One of the same second as the list may be the one that it has replaced, so it has to be on the list: the next heartbeat
brings that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.errors import NotTrusted
from common.program.logs import entry
from common.program.places import Caller
from common.program.state_files import DAMAGE, read_state, write_state
from common.trust.certificates import COORDINATOR, PeerName, certificates_in, mesh_of
from common.trust.member_list import MOST_BYTES, MemberList, believed

FILE = "members.signed"

log = logging.getLogger(__name__)


class KnownMembers:
    """The certificates that are good."""

    def __init__(self, identity_directory: Path, authorities: Callable[[], bytes]) -> None:
        """Read what was heard before; what cannot be believed is heard again.

        Args: authorities: whose lists are believed, in PEM: one, or two while one takes the other's place.
        """
        self._path, self._authorities, self._mesh = identity_directory / FILE, authorities, mesh_of(authorities())
        self._list: MemberList | None = None
        self.signed = b"", b""
        """The list that is known as it was heard: content and signature; empty: none is."""
        self._is_kept = True
        self.changed: Callable[[], None] = lambda: None
        """Called by who hears, once another list is known."""
        with suppress(OSError, *DAMAGE):
            if self._path.stat().st_size <= 4 * MOST_BYTES:
                self._list = read_state(self._path, self._read)

    @property
    def number(self) -> int:
        """Of the list that is known; 0: none is."""
        return 0 if self._list is None else self._list.number

    def hear(self, content: bytes, signature: bytes) -> None:
        """Take a list, if it is a later one. Raises: NotTrusted: it is not the authority's; nothing has changed."""
        is_same = self._list is not None and content == self._list.content
        if is_same and self._is_kept:
            return
        heard = self._believed(content, signature)
        if heard.number <= self.number and not is_same:
            return
        was_kept, self._list, self.signed = self._is_kept, heard, (content, signature)
        try:
            kept = {"content": content.hex(), "signature": signature.hex()}
            write_state(self._path, json.dumps(kept).encode("ascii"))
            self._is_kept = True
        except OSError as error:
            self._is_kept = False
            if was_kept:
                log.warning("%s", entry("the list of members is not kept beyond this node's end", path=self._path,
                                        error=error.strerror))  # fmt: skip
        self.changed()

    def refusal(self, peer: PeerName, caller: Caller) -> str:
        """Return why a peer may not come in by the list; empty: it may, or there is no list."""
        known = self._list
        if known is None:
            return ""
        is_coordinator = peer.role == COORDINATOR
        if caller.serial in (known.coordinators if is_coordinator else known.members):
            return ""
        if is_coordinator and caller.certified_at > known.made_at:
            return ""
        return f"{peer.uri} shows a certificate that is not good any more, or was removed from the mesh"

    def _read(self, text: bytes) -> MemberList:
        kept = json.loads(text)
        signed = bytes.fromhex(kept["content"]), bytes.fromhex(kept["signature"])
        known, self.signed = self._believed(*signed), signed
        return known

    def _believed(self, content: bytes, signature: bytes) -> MemberList:
        *others, last = certificates_in(self._authorities())
        heard = None
        for authority in others:
            with suppress(NotTrusted):
                heard = believed(content, signature, authority)
        heard = heard or believed(content, signature, last)
        if heard.mesh != self._mesh:
            raise NotTrusted(f"a list of members is of mesh {heard.mesh[:40]}")
        return heard
