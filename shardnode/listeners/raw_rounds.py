"""Rounds over gRPC as bytes: messages are read and written by the session's own thread, which so knows their sizes.

Covers: registering ShardService with its Rounds unread. Does not cover: what is answered (service.py), the direct
socket, where frames are bytes anyway (direct.py). gRPC's generated registration would read them before us, and
to ask a message for its size afterwards is to write it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError

from common.errors import InputError
from protos.shardmesh.v1 import shard_pb2

SERVICE_NAME = shard_pb2.DESCRIPTOR.services_by_name["ShardService"].full_name


class RawShardServicer(Protocol):
    """ShardService, its Rounds in bytes."""

    Rounds: Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]
    GetStats: Callable[[shard_pb2.GetStatsRequest, grpc.ServicerContext], shard_pb2.GetStatsResponse]


def add_raw_servicer(servicer: RawShardServicer, server: grpc.Server) -> None:
    """Have a server answer ShardService; as the generated add_ShardServiceServicer_to_server does, but for Rounds."""
    handlers = {
        "Rounds": grpc.stream_stream_rpc_method_handler(servicer.Rounds),
        "GetStats": grpc.unary_unary_rpc_method_handler(
            servicer.GetStats,
            request_deserializer=shard_pb2.GetStatsRequest.FromString,
            response_serializer=shard_pb2.GetStatsResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    server.add_registered_method_handlers(SERVICE_NAME, handlers)


def request_from(message: bytes) -> shard_pb2.RoundsRequest:
    """Return a request. Raises: InputError: it is none."""
    try:
        return shard_pb2.RoundsRequest.FromString(message)
    except DecodeError:
        raise InputError("a message that cannot be read") from None
