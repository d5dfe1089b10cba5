"""A node that was off for longer than its certificate lasts gets a new one, and is told what is the matter meanwhile.

Mutual TLS refuses a certificate that has ended, or has not begun, before anybody is asked about it. So the node asks
where devices join, the port after the coordinator's, which shows who it is and asks nobody for a certificate: with the
ended one, and with a request that the same key has signed. Its own clock says that it has ended; where that is wrong,
the coordinator's certificate is out of its time too, and nothing comes of it.

Covers: asking. Does not cover: when (membership.py), who gets one (coordinator/membership/joining.py).
"""

from __future__ import annotations

from datetime import datetime, timezone

import grpc

from common.errors import ShardmeshError
from common.trust.certificates import COORDINATOR, KeyedCertificate, KeyedRequest, PeerName, check_pair, lifetime_of
from common.trust.identity import Identity
from common.trust.tls import channel_to_authority
from common.wire.addresses import host_port, split_host_port
from common.wire.rpc import failures_of
from protos.shardmesh.v1 import mesh_pb2, mesh_pb2_grpc

CALL_SECONDS = 10.0


def renewed(identity: Identity, asked: KeyedRequest, coordinator: str) -> Identity:
    """Return an identity with a new certificate for the same key. Args: asked: that key with its request.

    Raises: ShardmeshError: in words that say what to do.
    """
    mesh = identity.peer.mesh
    host, port = split_host_port(coordinator)
    address, expected = host_port(host, port + 1), PeerName(mesh=mesh, role=COORDINATOR, name=mesh)
    request = mesh_pb2.RenewEndedRequest(certificate=identity.own.certificate, certificate_request=asked.request)
    try:
        with (
            channel_to_authority(address, identity.authority, expected) as channel,
            failures_of(f"the coordinator at {address}"),
        ):
            answer = _asked(channel, request)
    except ShardmeshError as error:
        raise type(error)(f"{why(identity)}, and it is not renewed: {error}") from error
    own = KeyedCertificate(key=asked.key, certificate=answer.certificate)
    check_pair(own)
    return Identity(authority=identity.authority, own=own)


def why(identity: Identity) -> str:
    """Return what is the matter with a certificate out of its time."""
    begins, ends = lifetime_of(identity.own.certificate)
    now = datetime.now(timezone.utc)
    what = f"ended on {ends:%Y-%m-%d}" if now > ends else f"begins on {begins:%Y-%m-%d}"
    return f"this node's certificate {what}, and its clock says {now:%Y-%m-%d} (if that is wrong, set it: timedatectl)"


def _asked(channel: grpc.Channel, request: mesh_pb2.RenewEndedRequest) -> mesh_pb2.RenewEndedResponse:
    stub = mesh_pb2_grpc.JoinServiceStub(channel)
    answer: mesh_pb2.RenewEndedResponse = stub.RenewEnded(request, timeout=CALL_SECONDS)
    return answer
