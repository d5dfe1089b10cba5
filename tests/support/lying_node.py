"""A gRPC peer that says it is a shard node and answers rounds with whatever a test wants: a hostile --nodes.

    with lying_node(lambda request, honest: honest.SerializeToString()[:-3]) as address:

Does not cover: honest nodes (listening_nodes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from common.wire.rpc import PROTOCOL_VERSION
from common.wire.tensor_codec import encode_tensor
from protos.shardmesh.v1 import shard_pb2, tensor_pb2
from tests.support.tiny_checkpoint import HIDDEN_SIZE

Lie = Callable[[shard_pb2.RoundsResponse], bytes]
"""(the response that an honest node would have sent) -> what is sent instead."""


@contextmanager
def lying_node(lie: Lie, *, rank: int = 0) -> Iterator[str]:
    """Yield the address of a node that agrees to sessions and sequences, and answers what it computes with `lie`."""

    def rounds(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for message in requests:
            request = shard_pb2.RoundsRequest.FromString(message)
            response = _honest(request)
            is_work = request.HasField("run_block") or request.HasField("run_layers")
            yield lie(response) if is_work else response.SerializeToString()

    def get_stats(request: bytes, context: grpc.ServicerContext) -> bytes:
        return shard_pb2.GetStatsResponse(
            protocol_version=PROTOCOL_VERSION, rank=rank, direct_path="/etc/passwd"
        ).SerializeToString()

    pool = futures.ThreadPoolExecutor(max_workers=4)
    server = grpc.server(pool, options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)])
    handlers: dict[str, Any] = {
        "Rounds": grpc.stream_stream_rpc_method_handler(rounds),
        "GetStats": grpc.unary_unary_rpc_method_handler(get_stats),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shardmesh.v1.ShardService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        pool.shutdown()


def tensor_of(response: shard_pb2.RoundsResponse) -> tensor_pb2.Tensor:
    """Return the tensor that an answer to a round or a run of layers carries."""
    if response.HasField("layers_result"):
        return response.layers_result.output
    return response.block_result.partial


def honest(response: shard_pb2.RoundsResponse) -> bytes:
    """Answer as an honest node would, which holds a model of zeros."""
    return response.SerializeToString()


def _honest(request: shard_pb2.RoundsRequest) -> shard_pb2.RoundsResponse:
    response = shard_pb2.RoundsResponse(call_id=request.call_id)
    if request.HasField("open_session"):
        response.session_opened.thread_count = 1
        response.session_opened.kv_budget_bytes = 1 << 30
    elif request.HasField("change_sequences"):
        response.sequences_changed.SetInParent()
    elif request.HasField("load_norms"):
        response.norms_loaded.SetInParent()
    elif request.HasField("run_layers"):
        row_count = sum(segment.row_count for segment in request.run_layers.segments)
        response.layers_result.layer_count = request.run_layers.layer_count
        encode_tensor(np.zeros((row_count, HIDDEN_SIZE), np.float32), response.layers_result.output)
    else:
        row_count = sum(segment.row_count for segment in request.run_block.segments)
        encode_tensor(np.zeros((row_count, HIDDEN_SIZE), np.float32), response.block_result.partial)
    return response
