"""What a device without a certificate of now may ask the coordinator: to be let in, or to be let in again.

Covers: the service of the port where devices join; what a device says of itself, distrusted. Does not cover: when that
port is open (program/door.py), who is let in (members.py).
"""

from __future__ import annotations

import logging
from dataclasses import fields

import grpc

from common.errors import InputError, NotTrusted, SliceMismatch
from common.program.logs import entry
from common.trust.certificates import NODE, PeerName, check_name, is_in_time, lifetime_of, made_at, peer_of, serial_of
from common.wire.rpc import PROTOCOL_VERSION, guarded
from coordinator.membership.book import Device, Issued
from coordinator.membership.rotation import Rotation
from coordinator.membership.state import MeshState
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc

MAX_TEXT = 100
MAX_CERTIFICATE_BYTES = 8192
MOST_BYTES = 1 << 60
DEVICE_NUMBERS = [field.name for field in fields(Device) if field.name != "version"]

log = logging.getLogger(__name__)


class JoinServicer(mesh_pb2_grpc.JoinServiceServicer):
    """Lets devices in."""

    def __init__(self, state: MeshState, mesh_port: int, rotation: Rotation) -> None:
        self._state, self._mesh_port, self._rotation = state, mesh_port, rotation

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
        issued = members.admit(
            request.name, request.secret, made.key_hash, device, lambda: issued_from(made.certificate)
        )
        log.info("%s", entry("node joined", node=request.name))
        return mesh_pb2.JoinResponse(
            certificate=issued.certificate, mesh_port=self._mesh_port, mesh_name=self._state.name
        )

    @guarded
    def RenewEnded(  # noqa: N802 - the name is the contract's
        self, request: mesh_pb2.RenewEndedRequest, context: grpc.ServicerContext
    ) -> mesh_pb2.RenewEndedResponse:
        ended = request.certificate[:MAX_CERTIFICATE_BYTES]
        peer, shown, members = peer_of(ended), serial_of(ended), self._state.members
        if (peer.mesh, peer.role) != (self._state.name, NODE):
            raise NotTrusted(f"{peer.uri} is not a node of this mesh")
        members.check_listed(peer.name, shown)  # before a process is started for a stranger
        if is_in_time(ended):
            raise SliceMismatch(f"the certificate of {peer.name} is in its time by this coordinator's clock: renew it "
                                f"as usual; which of the two clocks is wrong?")  # fmt: skip
        signer = self._rotation.signer_of(ended)
        made = self._state.certifying.certify_again(signer, ended, request.certificate_request, peer)

        def issue() -> Issued:
            log.info("%s", entry("certificate renewed that had ended", node=peer.name))
            return issued_from(made.certificate)

        issued = members.renew(peer.name, shown, made.key_hash, issue, made_at(ended).timestamp())
        return mesh_pb2.RenewEndedResponse(certificate=issued.certificate)


def issued_from(certificate: bytes) -> Issued:
    """Return what is written down of a new certificate, and sent."""
    ends = int(lifetime_of(certificate)[1].timestamp())
    return Issued(certificate=certificate, serial=serial_of(certificate), ends=ends)


def device_from(message: mesh_pb2.Device) -> Device:
    """Return what a device says of itself. Raises: SliceMismatch: it speaks another version; InputError."""
    if message.protocol_version != PROTOCOL_VERSION:
        raise SliceMismatch(f"the device speaks version {message.protocol_version} of the protocol, this coordinator "
                            f"{PROTOCOL_VERSION}; install the same shardmesh on both")  # fmt: skip
    numbers = {name: getattr(message, name) for name in DEVICE_NUMBERS}
    if any(not 0 <= number <= MOST_BYTES for number in numbers.values()):  # NaN is not either
        raise InputError("the device says that it has what no device has")
    return Device(version=_printable(message.version), **numbers)


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:MAX_TEXT] if letter.isprintable())
