"""What devices, members and the owner may ask the coordinator: joining, heartbeats, renewal, who is let in or removed.

Covers: the three services of protos/shardmesh/v1/mesh.proto; who may call which.
Does not cover: listeners (program/daemon.py, program/door.py), what is kept (members.py, observers.py, invites.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime, timedelta, timezone

import grpc

from common.errors import InputError, NotTrusted, ResourceError, SliceMismatch
from common.program.logs import entry
from common.program.pace import Pace
from common.trust.behind_gate import caller_address, caller_certificate, caller_of
from common.trust.certificates import (
    NODE,
    OBSERVER,
    KeyedCertificate,
    PeerName,
    check_name,
    fingerprint,
    lifetime_of,
    serial_of,
)
from common.trust.join_token import JoinToken
from common.wire.rpc import PROTOCOL_VERSION, guarded
from coordinator.membership.book import Device, Issued, Member
from coordinator.membership.good_list import GoodList
from coordinator.membership.invite_notes import invite_notes
from coordinator.membership.invites import Invites
from coordinator.membership.members import Members
from coordinator.membership.metrics_url import metrics_url
from coordinator.membership.node_address import node_address
from coordinator.membership.state import MeshState
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc

HEARTBEAT_SECONDS = 1.0
RENEWALS_AT_ONCE, RENEWALS_A_SECOND = 24, 0.1
"""A node asks once in two months, and each second while the answer is lost."""
MAX_TEXT = 100
MOST_BYTES = 1 << 60
MOST_VALID_DAYS = 3650
MOST_SECONDS = 1e11
"""Since 1970, that a node's clock may show."""
DEVICE_NUMBERS = [field.name for field in fields(Device) if field.name != "version"]

log = logging.getLogger(__name__)


class JoinServicer(mesh_pb2_grpc.JoinServiceServicer):
    """Lets devices in."""

    def __init__(self, state: MeshState, mesh_port: int) -> None:
        self._state, self._mesh_port = state, mesh_port

    @guarded
    def Join(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.JoinRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.JoinResponse:
        members, asked = self._state.members, request.certificate_request
        members.check_token(request.secret)  # before anything else is looked at that a stranger may have sent
        device = device_from(request.device)
        check_name(request.name)
        peer = PeerName(mesh=self._state.name, role=NODE, name=request.name)
        made = self._state.certifying.certify(self._state.authority, asked, peer)  # before anybody is kept waiting
        issued = members.admit(request.name, request.secret, made.key_hash, device, lambda: _issued(made.certificate))
        log.info("%s", entry("node joined", node=request.name))
        return mesh_pb2.JoinResponse(
            certificate=issued.certificate, mesh_port=self._mesh_port, mesh_name=self._state.name
        )


class MeshServicer(mesh_pb2_grpc.MeshServiceServicer):
    """Hears members."""

    def __init__(self, state: MeshState, good: GoodList | None = None) -> None:
        """Args: good: the list that is presented; None: one of its own."""
        self._state, self._good = state, good or GoodList(state)
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
        return self._state.members.check(peer.name, serial_of(caller_certificate(context)))

    @guarded
    def Heartbeat(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.HeartbeatResponse:
        received_at = time.time()
        member = self._caller(context)
        self._state.members.hear(
            member.name, node_address(request.listen, caller_address(context)), device_from(request.device),
            max(-1, request.rank), request.model_identity[:MAX_TEXT], clock_skew(request, received_at),
            metrics_url(request.metrics, caller_address(context)),
        )  # fmt: skip
        observers = self._state.observers
        return mesh_pb2.HeartbeatResponse(
            interval_seconds=HEARTBEAT_SECONDS,
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
        made = self._state.certifying.certify(self._state.authority, request.certificate_request, peer)

        def issue() -> Issued:
            log.info("%s", entry("certificate renewed", node=member.name))
            return _issued(made.certificate)

        shown = serial_of(caller_certificate(context))
        issued = self._state.members.renew(member.name, shown, made.key_hash, issue)
        return mesh_pb2.RenewCertificateResponse(certificate=issued.certificate)


class OwnerServicer(mesh_pb2_grpc.OwnerServiceServicer):
    """Obeys the owner."""

    def __init__(
        self, state: MeshState, invites: Invites, addresses: Callable[[], list[str]], invited: Callable[[], None],
        own_address: Callable[[], str], removed: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Args: addresses: where devices reach the join service; invited: called when there is a new token;
        own_address: where this machine reaches the members' listener; removed: called with a node that is gone.
        """
        self._state, self._invites, self._addresses, self._invited = state, invites, addresses, invited
        self._own_address, self._removed = own_address, removed

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
            return _issued(made.certificate)

        issued = self._state.observers.admit(request.name, issue)
        log.info("%s", entry("observer admitted", observer=request.name))
        return mesh_pb2.InviteObserverResponse(
            certificate=issued.certificate, authority=self._state.authority.certificate, certificate_ends=issued.ends
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


def _issued(certificate: bytes) -> Issued:
    """Return what is written down of a new certificate, and sent."""
    ends = int(lifetime_of(certificate)[1].timestamp())
    return Issued(certificate=certificate, serial=serial_of(certificate), ends=ends)


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


def device_from(message: mesh_pb2.Device) -> Device:
    """Return what a device says of itself. Raises: SliceMismatch: it speaks another version; InputError."""
    if message.protocol_version != PROTOCOL_VERSION:
        raise SliceMismatch(f"the device speaks version {message.protocol_version} of the protocol, this coordinator "
                            f"{PROTOCOL_VERSION}; install the same shardmesh on both")  # fmt: skip
    numbers = {name: getattr(message, name) for name in DEVICE_NUMBERS}
    if any(not 0 <= number <= MOST_BYTES for number in numbers.values()):  # NaN is not either
        raise InputError("the device says that it has what no device has")
    return Device(version=_printable(message.version), **numbers)


def clock_skew(request: mesh_pb2.HeartbeatRequest, received_at: float) -> float | None:
    """Return how far the caller's clock is ahead of ours; None where it does not say what that takes.

    Half of its last heartbeat's way there and back counts as the way here: the error is at most that half.
    Args: received_at: by our clock, seconds since 1970.
    """
    sent_at, round_trip = request.sent_at_seconds, request.round_trip_seconds
    if not (0 < sent_at < MOST_SECONDS and 0 < round_trip < MOST_SECONDS):  # an earlier build, or its first; NaN
        return None
    return sent_at + round_trip / 2 - received_at


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:MAX_TEXT] if letter.isprintable())
