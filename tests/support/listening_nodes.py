"""Shard nodes inside the test's own process, and clients of every transport to them.

    with ListeningNode(sliced, "grpc-tcp", tmp_path) as node:
        client = node.connect()

Covers: one ShardNode behind one transport, connecting, stopping it under a client's feet.
Does not cover: nodes as processes (coordinator/local/pool.py starts those).
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from unittest.mock import patch

import grpc

from common.trust import rounds_tls
from common.trust.identity import Identity
from common.trust.rounds_door import RoundsDoor
from common.wire.rpc import channel_options
from coordinator.membership.reach import MeshAccess
from coordinator.ranks.transports.arrivals import Arrivals
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.framed_tcp import FramedTcpClient, connect_framed
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from coordinator.ranks.transports.transport import ShardClient, whole_response
from protos.shardmesh.v1 import shard_pb2
from shardnode.listeners.direct import DirectServer
from shardnode.listeners.frames import FramesServer
from shardnode.listeners.service import NodeServer
from shardnode.sessions.live_sessions import LiveSessions
from shardnode.sessions.session_series import SessionSeries
from shardnode.slices.serving import Serving
from shardnode.work.slice_at_work import ShardNode
from tests.support.mesh_identities import MeshIdentities
from tests.support.sliced_models import SlicedModel

PYTHON_TLS = "frames-python-tls"
"""Where C cannot take part: both ends as on a system whose Python keeps its OpenSSL to itself."""
Transport = Literal["direct", "grpc-unix", "grpc-tcp", "frames", "frames-tls", "frames-python-tls"]
TRANSPORTS: tuple[Transport, ...] = ("direct", "grpc-unix", "grpc-tcp", "frames", "frames-tls", "frames-python-tls")
FRAMED = ("frames", "frames-tls", PYTHON_TLS)
SECURE = ("frames-tls", PYTHON_TLS)

NAME = "node 0 (under test)"
SOON_SECONDS = 10.0
"""For what another thread brings about; far longer than it takes."""


class ListeningNode:
    """One node that listens. As a context manager it ends with all that was connected to it."""

    def __init__(self, sliced: SlicedModel, transport: Transport, **settings: Any) -> None:
        """Start. Args: settings: of NodeConfig."""
        self._closing = ExitStack()
        self._transport = transport
        if transport == PYTHON_TLS:
            self._closing.enter_context(python_tls())
        # Not the test's own directory: a Unix socket's path has 108 bytes at most.
        directory = Path(tempfile.mkdtemp(prefix="shardmesh-test-"))
        self._closing.callback(shutil.rmtree, directory, ignore_errors=True)
        self.socket_path = str(directory / "node.sock")
        listen = f"unix:{self.socket_path}" if transport in ("direct", "grpc-unix") else "127.0.0.1:0"
        self.node = ShardNode(sliced.node_config(listen=listen, **settings))
        self._closing.callback(self.node.close)
        self.identities = MeshIdentities()
        self._server = _listen(self.node, transport, self.socket_path, self.identities)
        self._closing.callback(self.stop)

    def connect(self, **limits: Any) -> ShardClient:
        """Return a client with nothing sent. Args: limits: of the client, in seconds."""
        client: ShardClient
        if self._transport == "direct":
            client = DirectShardClient(self.socket_path, NAME, **limits)
        elif self._transport in FRAMED:
            client = self.framed(**limits)
        else:
            limits.pop("silence_seconds", None)  # pings do that, and they need seconds
            client = GrpcShardClient(self.channel(), NAME, **limits)
        self._closing.callback(client.close)
        return client

    def framed(self, identity: Identity | None = None, **limits: Any) -> FramedTcpClient:
        """Return a client in frames over TCP. Args: identity: who connects, if not the node's coordinator."""
        assert isinstance(self._server, FramesServer)
        secure = None
        if self._transport in SECURE:
            access = MeshAccess(
                mesh_name=self.identities.mesh, identity=lambda: identity or self.identities.coordinator(), nodes=list
            )
            secure = access.secured("kitchen")
        address = f"127.0.0.1:{self._server.port}"
        client = connect_framed(address, NAME, Arrivals(), secure, **limits)
        self._closing.callback(client.close)
        return client

    @property
    def port(self) -> int:
        """Where it takes frames over TCP."""
        assert isinstance(self._server, FramesServer)
        return self._server.port

    def channel(self) -> grpc.Channel:
        """Return a new gRPC channel to the node, closed with it."""
        assert isinstance(self._server, NodeServer)
        channel = grpc.insecure_channel(self._server.address, options=channel_options())
        self._closing.callback(channel.close)
        return channel

    def stop(self) -> None:
        """Listen and answer no more; may be called twice."""
        if isinstance(self._server, NodeServer):
            self._server.stop(0)
        else:
            self._server.close()

    def __enter__(self) -> ListeningNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


def python_tls() -> AbstractContextManager[object]:
    """Have every connection that is made meanwhile go by Python's ssl."""
    return patch.object(rounds_tls, "_for_c", lambda: None)


def ask(client: ShardClient, request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsResponse:
    """Send one request and return its response."""
    client.submit(request.SerializeToString())
    return whole_response(client.collect())


def _listen(
    node: ShardNode, transport: Transport, socket_path: str, identities: MeshIdentities
) -> NodeServer | DirectServer | FramesServer:  # fmt: skip
    if transport in FRAMED:
        own = identities.node()
        door = RoundsDoor(lambda: own) if transport in SECURE else None
        serving = Serving(node.config, opened=node)
        return FramesServer("127.0.0.1", 0, serving, LiveSessions(), SessionSeries(), door)
    if transport == "direct":
        return DirectServer(node, socket_path)
    server = NodeServer(node.config, Serving(node.config, opened=node))
    server.start()
    return server
