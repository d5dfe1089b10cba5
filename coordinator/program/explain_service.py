"""The coordinator's gRPC face for "why is it slow?". Messages in and out; answering/explaining.py does the work.

Covers: Explain of ObserveService; who may ask: whoever may open the owner's socket, the only place where it is served.
Threads: gRPC's.
"""

from __future__ import annotations

import grpc

from common.wire.rpc import guarded
from coordinator.answering.explaining import Explaining
from protos.shardmesh.v1 import observe_pb2, observe_pb2_grpc


class ExplainServicer(observe_pb2_grpc.ObserveServiceServicer):
    """Tells the owner where the time went."""

    def __init__(self, explaining: Explaining) -> None:
        self._explaining = explaining

    @guarded
    def Explain(  # noqa: N802 - the name is the contract's
        self, request: observe_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> observe_pb2.ExplainResponse:
        return self._explaining.explain(request.seconds)
