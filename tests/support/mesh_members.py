"""Devices that join a mesh, and strangers who forge what they can: for tests of trust.

Covers: joining in this process, identities signed by any authority, one heartbeat. Not: whole programs (cli.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc

from common.errors import ShardmeshError
from common.trust.certificates import COORDINATOR, KeyedCertificate, KeyedRequest, PeerName, serial_of
from common.trust.identity import Identity, load_identity, save_identity
from common.trust.signing import certify, keyed_request, make_key, make_request, requested_key_hash
from common.trust.signing_apart import RequestMaker
from common.trust.tls import secure_channel
from common.wire.rpc import PROTOCOL_VERSION, error_from_rpc
from coordinator.membership.book import Issued
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import MeshState, open_mesh_state
from coordinator.program.daemon import Coordinator
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc
from shardnode.membership.join import IDENTITY_DIRECTORY, join_mesh

LIMIT_SECONDS = 10.0
DEVICE = mesh_pb2.Device(protocol_version=PROTOCOL_VERSION, core_count=1)


class RequestMakerHere(RequestMaker):
    """Makes keys in this process; that another one does is a matter of memory, and tried with real programs."""

    def _start(self, kept: bytes) -> None:
        self._kept = kept

    def _wait(self) -> KeyedRequest:
        return keyed_request(self._kept)


def token_of(directory: Path, seconds: int = 60) -> str:
    """Return a token for one device."""
    with OwnerClient(directory) as owner:
        return owner.invite(seconds).token


def joined(directory: Path, name: str, data: Path) -> Identity:
    """Let a node in and return its identity."""
    join_mesh(token_of(directory), name, data, "127.0.0.1:0")
    return load_identity(data / IDENTITY_DIRECTORY)


def state_of(directory: Path) -> MeshState:
    """Return the mesh as a second reader sees it, with the authority's key: for forgeries only the owner could make."""
    return open_mesh_state(directory)


def forged(
    authority: KeyedCertificate, peer: PeerName, shown: bytes, *, ends: timedelta = timedelta(days=1)
) -> Identity:
    """Return an identity that `authority` has signed; `shown`: the authority that its owner trusts."""
    key = make_key()
    now = datetime.now(timezone.utc)
    certificate = certify(authority, make_request(key), peer, lifetime=ends, now=now)
    return Identity(authority=shown, own=KeyedCertificate(key=key, certificate=certificate))


def aged_identity(
    coordinator: Coordinator, identity_directory: Path, key: bytes = b"", days: int = 80
) -> Identity:  # fmt: skip
    """Give a node a certificate of so many days ago, which has to be renewed, and return its identity with it."""
    state, before = coordinator._state, load_identity(identity_directory)
    key = key or make_key()
    request, long_ago = make_request(key), datetime.now(timezone.utc) - timedelta(days=days)
    certificate = certify(state.authority, request, before.peer, now=long_ago)
    issued = Issued(certificate=certificate, serial=serial_of(certificate), ends=0)
    shown = serial_of(before.own.certificate)
    state.members.renew(before.peer.name, shown, requested_key_hash(request), lambda: issued)
    state.members.check(before.peer.name, issued.serial)
    aged = Identity(authority=before.authority, own=KeyedCertificate(key=key, certificate=certificate))
    save_identity(identity_directory, aged)
    return aged


def beat(coordinator: Coordinator, identity: Identity, expected: str = "home") -> ShardmeshError | None:
    """Send a heartbeat and return why it was refused."""
    peer = PeerName(mesh=expected, role=COORDINATOR, name=expected)
    with secure_channel(coordinator.address, identity, peer) as channel:
        try:
            mesh_pb2_grpc.MeshServiceStub(channel).Heartbeat(
                mesh_pb2.HeartbeatRequest(device=DEVICE, listen="127.0.0.1:5"), timeout=LIMIT_SECONDS
            )
        except grpc.RpcError as error:
            return error_from_rpc(error, "coordinator")
    return None
