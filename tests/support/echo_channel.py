"""A node's LinkService alone, over gRPC on a Unix socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from common.wire.rpc import channel_options, make_server
from protos.shardmesh.v1 import links_pb2_grpc
from shardnode.listeners.link_service import LinkServicer


@contextmanager
def echo_channel(servicer: LinkServicer) -> Iterator[grpc.Channel]:
    """Yield a channel to a server of it, which ends at the end."""
    server = make_server(4)
    links_pb2_grpc.add_LinkServiceServicer_to_server(servicer, server)
    with tempfile.TemporaryDirectory(prefix="shardmesh-test-") as directory:
        server.add_insecure_port(f"unix:{directory}/node")
        server.start()
        try:
            with grpc.insecure_channel(f"unix:{directory}/node", options=channel_options()) as channel:
                yield channel
        finally:
            server.stop(0).wait()
