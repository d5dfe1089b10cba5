"""Shard nodes inside the test's own process, and clients of every transport to them.

    with ListeningNode(sliced, "grpc-tcp", tmp_path) as node:
        client = node.connect()

Covers: one ShardNode behind one transport, connecting, stopping it under a client's feet.
Does not cover: nodes as processes (coordinator/local/pool.py starts those).
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import grpc

from common.wire.rpc import channel_options
from coordinator.ranks.transports.framed import DirectShardClient
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from coordinator.ranks.transports.transport import ShardClient
from protos.shardmesh.v1 import shard_pb2
from shardnode.listeners.direct import DirectServer
from shardnode.listeners.service import NodeServer
from shardnode.slices.serving import Serving
from shardnode.work.slice_at_work import ShardNode
from tests.support.sliced_models import SlicedModel

Transport = Literal["direct", "grpc-unix", "grpc-tcp"]
TRANSPORTS: tuple[Transport, ...] = ("direct", "grpc-unix", "grpc-tcp")

NAME = "node 0 (under test)"
SOON_SECONDS = 10.0
"""For what another thread brings about; far longer than it takes."""


class ListeningNode:
    """One node that listens. As a context manager it ends with all that was connected to it."""

    def __init__(self, sliced: SlicedModel, transport: Transport, **settings: Any) -> None:
        """Start. Args: settings: of NodeConfig."""
        self._closing = ExitStack()
        self._transport = transport
        # Not the test's own directory: a Unix socket's path has 108 bytes at most.
        directory = Path(tempfile.mkdtemp(prefix="shardmesh-test-"))
        self._closing.callback(shutil.rmtree, directory, ignore_errors=True)
        self.socket_path = str(directory / "node.sock")
        listen = "127.0.0.1:0" if transport == "grpc-tcp" else f"unix:{self.socket_path}"
        self.node = ShardNode(sliced.node_config(listen=listen, **settings))
        self._closing.callback(self.node.close)
        self._server = _listen(self.node, transport, self.socket_path)
        self._closing.callback(self.stop)

    def connect(self, **limits: Any) -> ShardClient:
        """Return a client with nothing sent. Args: limits: of the client, in seconds."""
        client: ShardClient
        if self._transport == "direct":
            client = DirectShardClient(self.socket_path, NAME, **limits)
        else:
            limits.pop("silence_seconds", None)  # pings do that, and they need seconds
            client = GrpcShardClient(self.channel(), NAME, **limits)
        self._closing.callback(client.close)
        return client

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


def ask(client: ShardClient, request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsResponse:
    """Send one request and return its response."""
    client.submit(request.SerializeToString())
    return client.collect().response


def _listen(node: ShardNode, transport: Transport, socket_path: str) -> NodeServer | DirectServer:
    if transport == "direct":
        return DirectServer(node, socket_path)
    server = NodeServer(node.config, Serving(node.config, opened=node))
    server.start()
    return server
