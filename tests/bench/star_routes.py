"""Over which of the product's own transports do the star's rounds go?

Covers: our servers and clients as the programs build them, one entry of ROUTES each; a new transport is one more.
Does not cover: bare sockets beside them (star_sockets.py), the rounds (star.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from common.trust.certificates import NODE, PeerName
from common.trust.identity import Identity
from common.trust.member_door import coordinator_only
from common.trust.rounds_door import RoundsDoor
from common.trust.tls import secure_channel
from common.wire.rpc import channel_options
from coordinator.membership.reach import MeshAccess
from coordinator.ranks.transports.arrivals import Arrivals
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.framed_tcp import connect_framed
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from coordinator.ranks.transports.transport import ShardClient
from shardnode.listeners.direct import DirectServer
from shardnode.listeners.frames import FramesServer
from shardnode.listeners.service import NodeServer
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.session_series import SessionSeries
from shardnode.slices.serving import Serving
from tests.bench.star_seats import LOOPBACK, CoordinatorSeat, NodeSeat

DIRECT, GRPC_UNIX, GRPC_TCP = "direct socket", "gRPC over a Unix socket", "gRPC over TCP"
GRPC_TLS, FRAMES_TLS = "gRPC over TLS", "frames over TLS"


@dataclass(frozen=True, kw_only=True)
class Route:
    """One transport of the product."""

    serve: Callable[[NodeSeat], tuple[str, object]]
    """In the node's process: listens; gives the address, and what has to live as long as the process."""
    connect: Callable[[Sequence[str], CoordinatorSeat, ExitStack], list[ShardClient]]
    """In the coordinator's process: to all addresses, in rank order."""


class _Member:
    """What a node's server asks of its membership: who it is. Nobody measures the device here."""

    def __init__(self, identity: Identity) -> None:
        self.peer = identity.peer
        self.identity = lambda: identity
        self.judge = coordinator_only(self.peer.mesh)


def _serve_direct(seat: NodeSeat) -> tuple[str, object]:
    path = f"{seat.run_directory}/direct"
    return path, DirectServer(seat.open_node(f"{LOOPBACK}:0"), path)


def _connect_direct(addresses: Sequence[str], seat: CoordinatorSeat, closing: ExitStack) -> list[ShardClient]:
    return [DirectShardClient(address, name) for address, name in zip(addresses, seat.node_names, strict=True)]


def _serve_grpc(seat: NodeSeat, listen: str, membership: Any = None) -> tuple[str, object]:
    node = seat.open_node(listen)
    server = NodeServer(node.config, Serving(node.config, opened=node), membership=membership)
    server.start()
    return server.address, server


def _connect_grpc(addresses: Sequence[str], seat: CoordinatorSeat, closing: ExitStack) -> list[ShardClient]:
    channels = [grpc.insecure_channel(address, options=channel_options()) for address in addresses]
    return _sessions(channels, seat, closing)


def _connect_grpc_tls(addresses: Sequence[str], seat: CoordinatorSeat, closing: ExitStack) -> list[ShardClient]:
    channels = [
        secure_channel(address, seat.identity, PeerName(mesh=seat.mesh_name, role=NODE, name=name))
        for address, name in zip(addresses, seat.node_names, strict=True)
    ]
    return _sessions(channels, seat, closing)


def _sessions(channels: Sequence[grpc.Channel], seat: CoordinatorSeat, closing: ExitStack) -> list[ShardClient]:
    for channel in channels:
        closing.callback(channel.close)
    return [GrpcShardClient(channel, name) for channel, name in zip(channels, seat.node_names, strict=True)]


def _serve_frames(seat: NodeSeat) -> tuple[str, object]:
    node = seat.open_node(f"{seat.address}:0")
    serving = Serving(node.config, opened=node)
    door = RoundsDoor(lambda: seat.identity)
    server = FramesServer(seat.address, 0, serving, LiveSessions(), SessionSeries(), door)
    return f"{seat.address}:{server.port}", server


def _connect_frames(addresses: Sequence[str], seat: CoordinatorSeat, closing: ExitStack) -> list[ShardClient]:
    access = MeshAccess(mesh_name=seat.mesh_name, identity=lambda: seat.identity, nodes=list)
    arrivals = Arrivals()
    return [
        connect_framed(address, name, arrivals, access.secured(name))
        for address, name in zip(addresses, seat.node_names, strict=True)
    ]


ROUTES: dict[str, Route] = {
    DIRECT: Route(serve=_serve_direct, connect=_connect_direct),
    GRPC_UNIX: Route(serve=lambda seat: _serve_grpc(seat, f"unix:{seat.run_directory}/grpc"), connect=_connect_grpc),
    GRPC_TCP: Route(serve=lambda seat: _serve_grpc(seat, f"{LOOPBACK}:0"), connect=_connect_grpc),
    GRPC_TLS: Route(
        serve=lambda seat: _serve_grpc(seat, f"{seat.address}:0", _Member(seat.identity)), connect=_connect_grpc_tls
    ),
    FRAMES_TLS: Route(serve=_serve_frames, connect=_connect_frames),
}
LANE = FRAMES_TLS
"""How rounds go to other devices: what the bars are about."""
