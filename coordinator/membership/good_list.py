"""Which list of good certificates does the coordinator present? The members of now, signed by the authority.

Covers: signing it anew when a certificate was made or revoked, numbers that go up over restarts and clocks that are set
back. Does not cover: the list's form (common/trust/member_list.py), who believes it (nodes). Threads: one while a list
is signed, which takes a process and 0.2 s; until then the list before is presented.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress

from common.errors import ShardmeshError
from common.program.logs import entry
from common.program.state_files import DAMAGE, read_state, write_state
from common.trust.certificates import serial_of
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
        with suppress(OSError, *DAMAGE):
            self._list, self._signed = read_state(self._path, self._read)

    def current(self) -> mesh_pb2.SignedMembers | None:
        """Return the last list that is signed, None before the first, and have another one signed if it is over."""
        known = self._list
        if known is None or (known.members, known.coordinators) != self._good():
            with self._lock:
                if not self._is_signing and time.monotonic() >= self._not_before:
                    self._is_signing = True
                    threading.Thread(target=self._sign, name="member list", daemon=True).start()
        return self._signed

    def _read(self, text: bytes) -> tuple[MemberList, mesh_pb2.SignedMembers]:
        kept = json.loads(text)
        content, signature = bytes.fromhex(kept["content"]), bytes.fromhex(kept["signature"])
        known = believed(content, signature, self._state.authority.certificate)
        return known, mesh_pb2.SignedMembers(content=content, signature=signature)

    def _good(self) -> tuple[frozenset[str], frozenset[str]]:
        members = frozenset(serial for member in self._state.members.all() for serial in member.serials)
        return members, frozenset((serial_of(self._state.identity().own.certificate),))

    def _sign(self) -> None:
        try:
            members, coordinators = self._good()
            number = max(int(time.time() * 1000), 0 if self._list is None else self._list.number + 1)
            made = MemberList(
                mesh=self._state.name, number=number, made_at=int(time.time()), members=members,
                coordinators=coordinators,
            )  # fmt: skip
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
