"""Which list of good certificates does the coordinator present? The members of now, signed by the authority.

Covers: signing it anew when a certificate was made or revoked; numbers and times that go up over restarts, over clocks
that are set back, and above what nodes keep where a coordinator was brought back. Does not cover: the list's form
(common/trust/member_list.py), who believes it (nodes). Threads: one while a list is signed, which takes a process and
0.2 s; until then the list before is presented.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress

from common.errors import NotTrusted, ShardmeshError
from common.program.logs import entry
from common.program.state_files import DAMAGE, read_state, write_state
from common.trust.certificates import made_at, serial_of
from common.trust.member_list import MemberList, believed
from coordinator.membership.state import MeshState
from protos.shardmesh.v1 import mesh_pb2

FILE = "members.signed"
AGAIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class GoodList:
    """The list of one mesh. Safe from any thread."""

    def __init__(self, state: MeshState) -> None:
        """Read the one before; one that cannot be believed is signed anew."""
        self._state, self._path = state, state.directory / FILE
        self._lock = threading.Lock()
        self._signed: mesh_pb2.SignedMembers | None = None
        self._list: MemberList | None = None
        self._is_signing, self._not_before = False, 0.0
        self._above = 0
        with suppress(OSError, *DAMAGE):
            self._list, self._signed = read_state(self._path, self._read)

    def current(self) -> mesh_pb2.SignedMembers | None:
        """Return the last list that is signed, None before the first, and have another one signed if it is over."""
        known = self._list
        if known is None or known.number <= self._above or (known.members, known.coordinators) != self._good():
            with self._lock:
                if not self._is_signing and time.monotonic() >= self._not_before:
                    self._is_signing = True
                    threading.Thread(target=self._sign, name="member list", daemon=True).start()
        return self._signed

    @property
    def signed(self) -> mesh_pb2.SignedMembers | None:
        """The last list that is signed; None before the first."""
        return self._signed

    def outdo(self, content: bytes, signature: bytes) -> None:
        """Have the list be later than one that a node keeps: else no node would take it.

        One that the authority has not signed counts for nothing.
        """
        if not content or (self._signed is not None and content == self._signed.content):
            return
        with suppress(NotTrusted):
            heard = believed(content, signature, self._state.authority.certificate)
            self._above = max(self._above, heard.number)

    def _read(self, text: bytes) -> tuple[MemberList, mesh_pb2.SignedMembers]:
        kept = json.loads(text)
        content, signature = bytes.fromhex(kept["content"]), bytes.fromhex(kept["signature"])
        known = believed(content, signature, self._state.authority.certificate)
        return known, mesh_pb2.SignedMembers(content=content, signature=signature)

    def _good(self) -> tuple[frozenset[str], frozenset[str]]:
        members = frozenset(serial for member in self._state.members.all() for serial in member.serials)
        return members, frozenset((serial_of(self._state.identity().own.certificate),))

    def _next(self) -> MemberList:
        """Return what is to be signed: later than the list before, and than every certificate of this coordinator's.

        Nodes let a coordinator in whose certificate is later than their list, so none of before may be.
        """
        (members, coordinators), before = self._good(), self._list
        own = int(made_at(self._state.identity().own.certificate).timestamp())
        return MemberList(
            mesh=self._state.name,
            number=max(int(time.time() * 1000), self._above + 1, 0 if before is None else before.number + 1),
            made_at=max(int(time.time()), own, 0 if before is None else before.made_at),
            members=members, coordinators=coordinators, returned=self._state.book.kept.lost[1],
        )  # fmt: skip

    def _sign(self) -> None:
        try:
            made = self._next()
            signature = self._state.certifying.sign(self._state.authority, made.content)
            kept = {"content": made.content.hex(), "signature": signature.hex()}
            write_state(self._path, json.dumps(kept).encode("ascii"))
            self._list, self._signed = made, mesh_pb2.SignedMembers(content=made.content, signature=signature)
        except (ShardmeshError, OSError) as error:
            log.warning("%s", entry("the list of members is not signed yet", error=error))
            self._not_before = time.monotonic() + AGAIN_SECONDS
        except Exception:  # the thread's edge: the list before is presented, and this one tried again
            log.exception("the list of members is signed again, after an unforeseen error")
            self._not_before = time.monotonic() + AGAIN_SECONDS
        finally:
            self._is_signing = False
