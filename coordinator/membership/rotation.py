"""Another authority takes the place of the mesh's, and nobody joins again.

    1  next-authority.pem: made. The coordinator believes both, and tells each node that does not, with its heartbeats.
    2  A node that believes both asks for a certificate of the new one's, and shows it.
    3  Once every member has, the coordinator shows one of the new one's too, signs with it, and believes it alone.

Wherever that is broken off it goes on with the next start: what has come so far is told by the files, and by what nodes
show. A node that is off is waited for; whoever cannot wait leaves it behind, and it joins again.
Covers: one rotation. Does not cover: a node's part (shardnode/membership/membership.py), observers, who need the new
authority's certificate to know whose pages they read. Safe to call from several threads.
"""

from __future__ import annotations

import logging
import threading

from common.program.logs import entry
from common.program.state_files import remove_state, write_state
from common.trust.certificates import KeyedCertificate, fingerprint, is_signed_by
from common.trust.identity import Identity, not_written
from coordinator.membership.state import AUTHORITY_KEY_FILE, NEXT_FILE, MeshState

log = logging.getLogger(__name__)


class Rotation:
    """What becomes of a mesh's authority."""

    def __init__(self, state: MeshState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._moved: set[str] = set()

    def begin(self) -> None:
        """Make another authority, unless one is there to come. Raises: ResourceError, DiskFull, InputError."""
        with self._lock:
            if self._state.next_authority is not None:
                return
            made = self._state.certifying.authority(self._state.name)
            try:
                write_state(self._state.directory / NEXT_FILE, made.key + made.certificate)
            except OSError as error:
                raise not_written(self._state.directory, error) from error
            self._state.next_authority = made
            self._moved.clear()
        log.info("%s", entry("another authority is made", mesh=self._state.name))

    def signer(self, known: bytes) -> KeyedCertificate:
        """Return who signs for a node. Args: known: SHA-256 of the newest authority that it believes; empty: one."""
        coming = self._state.next_authority
        if coming is not None and known == fingerprint(coming.certificate):
            return coming
        return self._state.authority

    def signer_of(self, certificate: bytes) -> KeyedCertificate:
        """Return which of the authorities has signed a certificate, as it says."""
        coming = self._state.next_authority
        is_coming = coming is not None and is_signed_by(certificate, coming.certificate)
        return coming if is_coming and coming is not None else self._state.authority

    def note(self, name: str, certificate: bytes) -> None:
        """Take notice of what a member has shown; the last of them ends the rotation."""
        coming = self._state.next_authority
        if coming is None or name in self._moved or not is_signed_by(certificate, coming.certificate):
            return
        self._moved.add(name)
        self.advance()

    def advance(self, *, leave_behind: bool = False) -> list[str]:
        """End the rotation if nobody is waited for; return who is. Args: leave_behind: wait for nobody.

        Raises: ResourceError, DiskFull, InputError: not now; the next heartbeat or call tries again.
        """
        with self._lock:
            coming = self._state.next_authority
            if coming is None:
                return []
            waiting = [member.name for member in self._state.members.all() if member.name not in self._moved]
            if waiting and not leave_behind:
                return waiting
            self._finish(coming)
        log.info("%s", entry("the new authority is the mesh's", mesh=self._state.name, left_behind=",".join(waiting)))
        return []

    def _finish(self, coming: KeyedCertificate) -> None:
        state = self._state
        own = state.certifying.own(coming, state.peer)
        state.take(Identity(authority=state.trusted, own=own))
        try:
            write_state(state.directory / AUTHORITY_KEY_FILE, coming.key)
            state.authority = coming
            remove_state(state.directory / NEXT_FILE)
        except OSError as error:
            raise not_written(state.directory, error) from error
        state.next_authority = None
        state.take(Identity(authority=state.trusted, own=own))
