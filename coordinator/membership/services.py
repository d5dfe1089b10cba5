"""What members and the owner may ask the coordinator: heartbeats, renewal, who is let in or removed.

Covers: two services of protos/shardmesh/v1/mesh.proto; who may call which.
Does not cover: devices that join (joining.py), listeners (program/daemon.py), what is kept (members.py, observers.py).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import grpc

from common.errors import InputError, NotTrusted, ResourceError
from common.program.logs import entry
from common.program.pace import Pace
from common.trust.behind_gate import caller_address, caller_certificate, caller_of
from common.trust.certificates import (
    NODE,
    OBSERVER,
    KeyedCertificate,
    PeerName,
    fingerprint,
    lifetime_of,
    made_at,
    serial_of,
)
from common.trust.join_token import JoinToken
from common.wire.rpc import PROTOCOL_VERSION, guarded
from coordinator.membership.book import Issued, Member
from coordinator.membership.found_again import FoundAgain
from coordinator.membership.good_list import GoodList
from coordinator.membership.invite_notes import invite_notes
from coordinator.membership.invites import Invites
from coordinator.membership.joining import MAX_TEXT, device_from, issued_from
from coordinator.membership.members import Members, not_a_member
from coordinator.membership.metrics_url import metrics_url
from coordinator.membership.node_address import node_address
from coordinator.membership.rotation import Rotation
from coordinator.membership.state import MeshState
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc

HEARTBEAT_SECONDS = 1.0
RENEWALS_AT_ONCE, RENEWALS_A_SECOND = 8, 0.1
"""A node asks once in two months, and again while the answer is lost. Each takes a process, and so 0.3 s of a core."""
MOST_VALID_DAYS = 3650
MOST_SECONDS = 1e11
"""Since 1970, that a node's clock may show."""

log = logging.getLogger(__name__)


class MeshServicer(mesh_pb2_grpc.MeshServiceServicer):
    """Hears members."""

    def __init__(self, state: MeshState, rotation: Rotation, good: GoodList | None = None) -> None:
        """Args: good: the list that is presented; None: one of its own."""
        self._state, self._rotation, self._good = state, rotation, good or GoodList(state)
        self._found = FoundAgain(state)
        if (kept := self._good.signed) is not None:  # it may be all that is left of the time since a backup
            self._found.hear(kept.content, kept.signature)
        self._renewing, self._renewals = threading.Lock(), Pace(RENEWALS_AT_ONCE, RENEWALS_A_SECOND)

    def _check_pace(self, name: str) -> None:
        """Refuse who asks for certificates without an end: each takes a process. Raises: ResourceError."""
        with self._renewing:
            if not self._renewals.allows(name):
                raise ResourceError(f"{name} asks for certificates too often; one lasts for 90 days")

    def _caller(self, context: grpc.ServicerContext) -> Member:
        """Return the member who calls. Raises: NotTrusted."""
        peer = caller_of(context)
        if (peer.mesh, peer.role) != (self._state.name, NODE):
            raise NotTrusted(f"{peer.uri} is not a node of this mesh")
        shown = caller_certificate(context)
        serial, made = serial_of(shown), made_at(shown).timestamp()
        if not self._state.members.lists(peer.name, serial) and not self._found.lets_in(serial, made):
            raise NotTrusted(not_a_member(peer.name))
        return self._state.members.check(peer.name, serial, made)

    @guarded
    def Heartbeat(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.HeartbeatResponse:
        received_at = time.time()
        member = self._caller(context)
        if member.name in self._found.hear(request.members.content, request.members.signature):
            raise NotTrusted(not_a_member(member.name))
        self._good.outdo(request.members.content, request.members.signature)
        self._rotation.note(member.name, caller_certificate(context))
        self._state.members.hear(
            member.name, node_address(request.listen, caller_address(context)), device_from(request.device),
            max(-1, request.rank), request.model_identity[:MAX_TEXT], clock_skew(request, received_at),
            metrics_url(request.metrics, caller_address(context)),
        )  # fmt: skip
        observers, believed = self._state.observers, request.authorities_digest
        trusted = self._state.identity().authority
        return mesh_pb2.HeartbeatResponse(
            interval_seconds=HEARTBEAT_SECONDS,
            authorities=trusted if believed and believed != hashlib.sha256(trusted).digest() else b"",
            observers=mesh_pb2.GoodObservers(serials=observers.good_serials(), authority=observers.authority),
            members=self._good.current(),
        )

    @guarded
    def RenewCertificate(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.RenewCertificateRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.RenewCertificateResponse:
        member = self._caller(context)
        self._check_pace(member.name)
        peer = PeerName(mesh=self._state.name, role=NODE, name=member.name)
        signer = self._rotation.signer(request.authority_fingerprint)
        made = self._state.certifying.certify(signer, request.certificate_request, peer)

        def issue() -> Issued:
            log.info("%s", entry("certificate renewed", node=member.name))
            return issued_from(made.certificate)

        shown = serial_of(caller_certificate(context))
        issued = self._state.members.renew(member.name, shown, made.key_hash, issue)
        return mesh_pb2.RenewCertificateResponse(certificate=issued.certificate)


class OwnerServicer(mesh_pb2_grpc.OwnerServiceServicer):
    """Obeys the owner."""

    def __init__(
        self, state: MeshState, invites: Invites, addresses: Callable[[], list[str]], invited: Callable[[], None],
        own_address: Callable[[], str], removed: Callable[[str], None], rotation: Rotation,
    ) -> None:  # fmt: skip
        """Args: addresses: where devices reach the join service; invited: called when there is a new token;
        own_address: where this machine reaches the members' listener; removed: called with a node that is gone.
        """
        self._state, self._invites, self._addresses, self._invited = state, invites, addresses, invited
        self._own_address, self._removed, self._rotation = own_address, removed, rotation

    @guarded
    def Invite(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.InviteRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.InviteResponse:
        secret = self._invites.make(request.lifetime_seconds)
        try:
            self._invited()
            addresses = self._addresses()
        except BaseException:
            self._invites.take_back(secret)
            raise
        authority = self._state.authority.certificate
        token = JoinToken(
            addresses=() if request.without_addresses else addresses, authority_fingerprint=fingerprint(authority),
            secret=secret,
        )  # fmt: skip
        notes = invite_notes(
            addresses, without_addresses=request.without_addresses, authority=authority,
            own=self._state.identity().own.certificate,
        )  # fmt: skip
        return mesh_pb2.InviteResponse(token=token.text, notes=notes)

    @guarded
    def InviteObserver(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.InviteObserverRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.InviteObserverResponse:
        if not 1 <= request.valid_days <= MOST_VALID_DAYS:
            raise InputError(f"a certificate for {request.valid_days} days; from 1 to {MOST_VALID_DAYS} are possible")
        peer = PeerName(mesh=self._state.name, role=OBSERVER, name=request.name)

        def issue(authority: KeyedCertificate) -> Issued:
            left = lifetime_of(authority.certificate)[1] - datetime.now(timezone.utc)
            lifetime = max(timedelta(), min(timedelta(days=request.valid_days), left))
            made = self._state.certifying.certify(authority, request.certificate_request, peer, lifetime)
            return issued_from(made.certificate)

        issued = self._state.observers.admit(request.name, issue)
        log.info("%s", entry("observer admitted", observer=request.name))
        return mesh_pb2.InviteObserverResponse(
            certificate=issued.certificate, authority=self._state.trusted, certificate_ends=issued.ends
        )

    @guarded
    def RemoveNode(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.RemoveNodeRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.RemoveNodeResponse:
        if self._state.observers.has(request.name):
            self._state.observers.remove(request.name)
            log.info("%s", entry("observer removed", observer=request.name))
            return mesh_pb2.RemoveNodeResponse()
        try:
            self._state.members.remove(request.name)
        finally:  # also where it is so, but not yet sure to be on the disk
            if all(member.name != request.name for member in self._state.members.all()):
                self._removed(request.name)
        log.info("%s", entry("node removed", node=request.name))
        return mesh_pb2.RemoveNodeResponse()

    @guarded
    def RotateAuthority(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.RotateAuthorityRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.RotateAuthorityResponse:
        if request.begin:
            self._rotation.begin()
        waiting = self._rotation.advance(leave_behind=request.leave_behind)
        return mesh_pb2.RotateAuthorityResponse(waiting=waiting, is_done=self._state.next_authority is None)

    @guarded
    def ListNodes(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.ListNodesResponse:
        return mesh_pb2.ListNodesResponse(
            nodes=node_messages(self._state.members), mesh_name=self._state.name,
            coordinator_address=self._own_address(),
            observers=[
                mesh_pb2.Observer(name=observer.name, certificate_ends=observer.certificate_ends)
                for observer in self._state.observers.all()
            ],
        )  # fmt: skip


def node_messages(members: Members) -> list[mesh_pb2.Node]:
    """Return what the mesh knows of its members."""
    return [
        mesh_pb2.Node(
            name=member.name, address=member.address, silent_seconds=members.silent_seconds(member),
            certificate_ends=member.certificate_ends, rank=member.rank, model_identity=member.model_identity,
            metrics=member.metrics,
            device=mesh_pb2.Device(protocol_version=PROTOCOL_VERSION, **vars(member.device)),
        )
        for member in members.all()
    ]  # fmt: skip


def clock_skew(request: mesh_pb2.HeartbeatRequest, received_at: float) -> float | None:
    """Return how far the caller's clock is ahead of ours; None where it does not say what that takes.

    Half of its last heartbeat's way there and back counts as the way here: the error is at most that half.
    Args: received_at: by our clock, seconds since 1970.
    """
    sent_at, round_trip = request.sent_at_seconds, request.round_trip_seconds
    if not (0 < sent_at < MOST_SECONDS and 0 < round_trip < MOST_SECONDS):  # an earlier build, or its first; NaN
        return None
    return sent_at + round_trip / 2 - received_at
