"""The coordinator's gRPC face for whoever looks on. Messages in and out; overview.py does the work.

Covers: ObserveService; who may ask: whoever may open the owner's socket, the only place where it is served.
Threads: gRPC's.
"""

from __future__ import annotations

import grpc

from common.wire.rpc import guarded
from coordinator.program.overview import Overviews
from protos.shardmesh.v1 import observe_pb2, observe_pb2_grpc


class ObserveServicer(observe_pb2_grpc.ObserveServiceServicer):
    """Lets the owner look on."""

    def __init__(self, overviews: Overviews) -> None:
        self._overviews = overviews

    @guarded
    def Overview(  # noqa: N802 - the name is the contract's
        self, request: observe_pb2.OverviewRequest, context: grpc.ServicerContext
    ) -> observe_pb2.OverviewResponse:
        return self._overviews.now()
